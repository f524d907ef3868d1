import pytest
import torch

from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import ModelSettings
from embinv.training.settings import TrainingSettings
from jobs import batch_size
from jobs.batch_size import Trial, largest_that_fits, power_of_two, resolved
from tests.correctors import FAMILIES, tiny_corrector

CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConditionalMDLM(ModelSettings(size="tiny", pseudo_tokens=2).resolve(50, 16, 8))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_correctors_trial_hands_it_what_it_reads(family):
    Trial(tiny_corrector(family, 50, 16, 8, (1, 0)), TrainingSettings(precision="float32"), CPU)(2)


class Memory:
    """Holds `room` texts and no more; remembers what was tried."""

    def __init__(self, room):
        self.room, self.tried = room, []

    def __call__(self, size):
        self.tried.append(size)
        if size > self.room:
            raise torch.OutOfMemoryError(f"{size} texts")


@pytest.mark.parametrize(
    ("room", "most", "found"),
    [(100, 4096, 64), (64, 4096, 64), (63, 4096, 32), (1, 4096, 1), (0, 4096, 0), (10**9, 100, 64), (10**9, 1, 1)],
)
def test_size_doubles_until_the_memory_or_the_bound_is_full(room, most, found):
    memory = Memory(room)
    assert largest_that_fits(memory, most) == found
    assert memory.tried == [2**power for power in range(len(memory.tried))]
    assert max(memory.tried) <= min(most, max(1, 2 * room))


def test_other_errors_than_a_full_memory_are_not_swallowed():
    def broken(size):
        raise RuntimeError("a kernel failed")

    with pytest.raises(RuntimeError, match="a kernel failed"):
        largest_that_fits(broken, 8)


@pytest.mark.parametrize(("number", "power"), [(1, 1), (2, 2), (3, 2), (1023, 512), (1024, 1024)])
def test_power_of_two_is_not_above_the_number(number, power):
    assert power_of_two(number) == power


@pytest.mark.parametrize("precision", ["float32", "bfloat16-mixed"])
def test_trial_makes_a_real_pass_and_leaves_the_model_as_it_was(model, precision, monkeypatch):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    seen = []
    forward = model.forward

    def watched(z_t, *rest):
        seen.append((z_t.shape, torch.is_autocast_enabled("cpu")))
        loss, entropies = forward(z_t, *rest)
        loss.register_hook(lambda gradient: seen.append(gradient.shape))
        return loss, entropies

    monkeypatch.setattr(model, "forward", watched)
    random = torch.random.get_rng_state()
    Trial(model, TrainingSettings(precision=precision), CPU)(4)
    assert seen == [((4, 8), precision != "float32"), ()]
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_trial_recomputes_activations_as_training_will(model):
    Trial(model, TrainingSettings(precision="float32", activation_checkpointing=True), CPU)(1)
    assert model.checkpoint_activations


def test_trial_that_fails_leaves_no_gradient(model, monkeypatch):
    def full(*batch):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        Trial(model, TrainingSettings(precision="float32"), CPU)(1)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "rows", "found"),
    [
        ({}, 12_000, 64),
        ({"workers": 2, "gradient_accumulation": 2}, 12_000, 64),
        ({"workers": 3}, 12_000, 48),  # 16 texts of each
        ({"workers": 64}, 12_000, 64),
        ({}, 800, 8),  # 100 steps an epoch
        ({}, 20, 1),
        ({"batch_size": 48}, 20, 48),
    ],
    ids=str,
)
def test_number_on_a_cpu_is_fixed_but_for_few_rows(model, settings, rows, found):
    settings = TrainingSettings(**settings)
    known = resolved(settings, model, rows)
    assert known.batch_size == known.texts_per_step == found
    assert known == settings.model_copy(update={"batch_size": found})
    TrainingSettings.model_validate(known.model_dump())


@pytest.mark.parametrize(
    ("settings", "rows", "found"),
    [
        ({}, 2_000_000, 128),
        ({"workers": 4, "gradient_accumulation": 2}, 2_000_000, 1024),
        ({"workers": 64}, 2_000_000, 4096),  # no more than that, however many workers
        ({}, 5_000, 32),
    ],
    ids=str,
)
def test_number_on_a_gpu_is_what_fits_each_worker(model, settings, rows, found, monkeypatch):
    monkeypatch.setattr(batch_size, "Trial", lambda *_: Memory(150))
    assert resolved(TrainingSettings(device="cuda", **settings), model, rows).batch_size == found


def test_model_that_fits_no_text_is_told_with_the_way_out(model, monkeypatch):
    monkeypatch.setattr(batch_size, "Trial", lambda *_: Memory(0))
    with pytest.raises(ValueError, match=r"not even one text .* training.activation_checkpointing true"):
        resolved(TrainingSettings(device="cuda"), model, 2_000_000)


def test_an_unknown_number_is_not_used():
    with pytest.raises(AssertionError, match="batch_size is null"):
        _ = TrainingSettings().texts_per_step


@pytest.mark.gpu
def test_number_found_on_a_gpu_is_within_its_memory(model):
    settings = TrainingSettings(device="cuda", precision="bfloat16-mixed")
    known = resolved(settings, model, 2_000_000)
    Trial(model, settings, torch.device("cuda", 0))(known.texts_per_step)
    assert next(model.parameters()).device == CPU
