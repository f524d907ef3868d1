import math

import pytest
import torch

from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import LOSS_WEIGHTS
from embinv.diffusion.schedule import TIME_SAMPLERS
from embinv.training.engine import LocalEngine
from embinv.training.settings import TrainingSettings
from embinv.training.step import PARTS, add_noise, step_generator, to_tensors, training_loss

CPU = torch.device("cpu")


class WatchingEngine(LocalEngine):
    """Keeps what the model is asked, and what it answers."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked, self.entropies = [], []

    def loss(self, z_t, embedding, positions, targets, weights):
        self.asked.append((z_t, embedding, positions, targets, weights))
        loss, entropies = super().loss(z_t, embedding, positions, targets, weights)
        self.entropies.append(entropies)
        return loss, entropies


@pytest.fixture
def watching(toy):
    return toy.start(TrainingSettings(optimizer="adamw"), WatchingEngine)[0]


def batch(toy, rows=20):
    return to_tensors(toy.pairs, range(rows), CPU)


def test_each_seed_step_and_stream_has_its_own_draws_found_again_without_replay():
    def draw(*place):
        return torch.rand(4, generator=step_generator(*place)).tolist()

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 0), (0, 10**6, 7)]
    assert len({tuple(draw(*place)) for place in places}) == len(places)
    assert draw(3, 5, 1) == draw(3, 5, 1)


def test_rows_become_tensors_of_the_types_that_the_model_takes(toy):
    x_0, embedding = to_tensors(toy.pairs, [3, 1], CPU)
    assert (x_0.dtype, embedding.dtype) == (torch.int64, torch.float32)
    assert x_0.tolist() == toy.pairs.token_ids[[3, 1]].tolist()
    assert torch.equal(embedding, torch.from_numpy(toy.pairs.embeddings[[3, 1]]).float())


def test_model_is_asked_at_the_hidden_positions_and_sees_no_hidden_token(toy, watching):
    x_0, embedding = batch(toy)
    training_loss(watching, x_0, embedding, toy.ids, TrainingSettings(), step_generator(0, 0, 0))
    [(z_t, seen, positions, targets, _)] = watching.asked
    assert torch.equal(positions, z_t == toy.ids.mask_id)
    assert torch.equal(z_t[~positions], x_0[~positions])
    assert torch.equal(targets, x_0[positions])
    assert torch.equal(seen, embedding)
    ends = torch.isin(x_0, torch.tensor([toy.ids.eos_id, toy.ids.pad_id]))
    assert (positions & ends).any()
    assert (~positions & ends).any()


@pytest.mark.parametrize("loss_weight", sorted(LOSS_WEIGHTS))
@pytest.mark.parametrize("times", sorted(TIME_SAMPLERS))
def test_loss_and_its_parts_by_time_are_those_computed_by_hand(toy, watching, loss_weight, times):
    x_0, embedding = batch(toy)
    settings = TrainingSettings(loss_weight=loss_weight, times=times)
    found = training_loss(watching, x_0, embedding, toy.ids, settings, step_generator(3, 1, 0))

    generator = step_generator(3, 1, 0)
    t = TIME_SAMPLERS[times](len(x_0), generator)
    z_t, hidden = mask_tokens(x_0, t, toy.ids.mask_id, generator)
    with torch.no_grad():
        log_probability = watching.model(z_t, embedding)  # [B, L, V]
    loss, sums, counts = 0.0, [0.0] * 10, [0] * 10
    for b, time in enumerate(t.tolist()):
        for i in range(x_0.shape[1]):
            if hidden[b, i]:
                entropy = -log_probability[b, i, x_0[b, i]].item()
                loss += LOSS_WEIGHTS[loss_weight](t[b]).item() * entropy / x_0.numel()
                sums[min(9, int(time * 10))] += entropy
                counts[min(9, int(time * 10))] += 1
    assert PARTS == 10
    assert found.loss.item() == pytest.approx(loss, rel=1e-5)
    assert found.by_part[0].tolist() == pytest.approx(sums, rel=1e-5)
    assert found.by_part[1].tolist() == counts
    assert sum(counts) == hidden.sum()
    assert not found.by_part.requires_grad


def test_a_time_of_one_falls_into_the_last_bucket(toy, watching, monkeypatch):
    monkeypatch.setitem(TIME_SAMPLERS, "uniform", lambda count, generator: torch.ones(count))
    x_0, embedding = batch(toy)
    found = training_loss(watching, x_0, embedding, toy.ids, TrainingSettings(times="uniform"), step_generator(0, 0, 0))
    assert found.by_part[1].tolist() == [0] * 9 + [x_0.numel()]


def test_batch_without_a_hidden_token_costs_nothing_and_still_has_a_gradient(toy, watching, monkeypatch):
    monkeypatch.setitem(TIME_SAMPLERS, "uniform", lambda count, generator: torch.full((count,), 1e-12))
    x_0, embedding = batch(toy)
    found = training_loss(watching, x_0, embedding, toy.ids, TrainingSettings(times="uniform"), step_generator(0, 0, 0))
    watching.backward(found.loss)
    assert found.loss.item() == 0.0
    assert found.by_part.abs().sum() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in watching.model.parameters())


def test_loss_of_a_uniform_model_is_log_v_whatever_the_draws(toy):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw"))
    with torch.no_grad():
        engine.model.token_embedding.weight.zero_()
    x_0, embedding = batch(toy)
    settings = TrainingSettings(loss_weight="uniform")
    losses = [
        training_loss(engine, x_0, embedding, toy.ids, settings, step_generator(0, step, 0)).loss.item()
        for step in range(200)
    ]
    mean = sum(losses) / len(losses)
    error = torch.tensor(losses).std().item() / len(losses) ** 0.5
    # E[weight x t] over [1e-3, 1] is 1.001 for the uniform weight
    assert abs(mean - 1.001 * math.log(toy.tokenizer.vocab_size)) < 4 * error


# --- noise on the vectors


@pytest.mark.parametrize("share", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_noise_has_the_stated_share_of_each_vectors_root_mean_square(share, scale):
    directions = torch.randn((4, 20_000), generator=torch.Generator().manual_seed(0))
    clean = scale * directions * torch.tensor([[1], [2], [3], [9]])
    drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noise = add_noise(clean, share, drawn) - clean
    expected = share * clean.square().mean(dim=1).sqrt()
    assert torch.allclose(noise.std(dim=1), expected, rtol=0.03)
    assert (noise.mean(dim=1).abs() < 4 * expected / 20_000**0.5).all()
    # Gaussian: the share within one standard deviation
    within = (noise.abs() < expected.unsqueeze(1)).float().mean(dim=1)
    assert torch.allclose(within, torch.full((4,), 0.6827), atol=0.015)


def test_zero_vector_stays_zero_under_noise():
    assert not add_noise(torch.zeros(2, 8), 0.5, torch.ones(2, 8)).any()


def test_noise_is_found_again_by_its_generator_and_leaves_the_masks_as_they_are(toy, watching):
    x_0, embedding = batch(toy)

    def asked(share, *place):
        settings = TrainingSettings(embedding_noise=share)
        training_loss(watching, x_0, embedding, toy.ids, settings, step_generator(*place))
        return watching.asked[-1]

    z_t, noisy, *_ = asked(0.1, 0, 5, 1)
    again_z_t, again, *_ = asked(0.1, 0, 5, 1)
    assert torch.equal(again, noisy) and torch.equal(again_z_t, z_t)
    for place in ((1, 5, 1), (0, 6, 1), (0, 5, 0)):
        assert not torch.equal(asked(0.1, *place)[1], noisy)
    clean_z_t, clean, *_ = asked(0.0, 0, 5, 1)
    assert torch.equal(clean, embedding)
    assert torch.equal(clean_z_t, z_t)
    share = (noisy - embedding).square().mean().sqrt() / embedding.square().mean().sqrt()
    assert share.item() == pytest.approx(0.1, rel=0.2)
