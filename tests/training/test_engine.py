import pytest
import torch
from torch import nn

from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import masked_cross_entropy
from embinv.training.engine import LocalEngine
from embinv.training.settings import TrainingSettings
from embinv.training.step import to_tensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch(toy):
    x_0, embedding = to_tensors(toy.pairs, range(8), CPU)
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0.2, 1.0, 8)
    z_t, hidden = mask_tokens(x_0, t, toy.ids.mask_id, generator)
    return x_0, embedding, z_t, hidden, 1 / t


def one_step(engine, batch, parts):
    for rows in torch.arange(8).chunk(parts):
        x_0, embedding, z_t, hidden, weight = (part[rows] for part in batch)
        engine.backward(masked_cross_entropy(engine.forward(z_t, embedding, hidden), x_0, hidden, weight))
        engine.step(0.5)


@pytest.mark.parametrize("clipping", [0.0, 0.1])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_over_parts_equals_one_batch_of_them_all(toy, batch, clipping, parts):
    # plain SGD, since AdamW's first step is the gradient's sign and would turn rounding into a whole step
    whole, _ = toy.start(TrainingSettings(optimizer="adamw"))
    split, _ = toy.start(TrainingSettings(optimizer="adamw"))
    start = [parameter.detach().clone() for parameter in whole.model.parameters()]
    engines = []
    for engine, accumulation in ((whole, 1), (split, parts)):
        optimizer = torch.optim.SGD(engine.model.parameters(), lr=1.0)
        optimizer.param_groups[0]["initial_lr"] = 1.0
        engines.append(LocalEngine(engine.model, optimizer, accumulation, clipping))
        one_step(engines[-1], batch, accumulation)
    for a, b in zip(*(engine.model.parameters() for engine in engines), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert any((a != then).any() for a, then in zip(whole.model.parameters(), start, strict=True))


def test_weights_move_at_the_last_pass_of_an_accumulation_only(toy, batch):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw", batch_size=8, gradient_accumulation=2))
    x_0, embedding, z_t, hidden, weight = batch
    moved = []
    for _ in range(4):
        before = engine.model.head_bias.detach().clone()
        engine.backward(masked_cross_entropy(engine.forward(z_t, embedding, hidden), x_0, hidden, weight))
        engine.step(1.0)
        moved.append(bool((engine.model.head_bias != before).any()))
    assert moved == [False, True, False, True]


def linear_engine(clipping):
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    optimizer.param_groups[0]["initial_lr"] = 2.0
    return LocalEngine(model, optimizer, clipping=clipping)


@pytest.mark.parametrize(("clipping", "length"), [(0.0, 5.0), (1.0, 1.0), (10.0, 5.0)])
def test_gradient_is_clipped_to_its_norm_and_only_if_it_is_longer(clipping, length):
    engine = linear_engine(clipping)
    engine.backward((engine.model.weight * torch.tensor([3.0, 4.0, 0.0])).sum())  # gradient norm 5
    engine.step(0.25)
    assert engine.model.weight.norm().item() == pytest.approx(length * 2.0 * 0.25, rel=1e-4)


def test_saved_state_restores_weights_and_optimizer(toy, batch, tmp_path):
    settings = TrainingSettings(optimizer="muon")
    engine, _ = toy.start(settings)
    one_step(engine, batch, 1)
    engine.save(tmp_path)
    one_step(engine, batch, 1)
    restored, _ = toy.start(settings, seed=1)
    restored.load(tmp_path)
    one_step(restored, batch, 1)
    assert all(torch.equal(a, b) for a, b in zip(engine.model.parameters(), restored.model.parameters(), strict=True))


def test_alone_a_total_and_an_agreement_are_the_values_themselves():
    engine = linear_engine(0.0)
    assert (engine.rank, engine.world) == (0, 1)
    assert engine.total([1.0, 2.5]) == [1.0, 2.5]
    assert engine.agree(3.5) == 3.5
