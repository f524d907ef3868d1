"""A step split over workers and passes is the step of one worker in one pass: rows, draws and gradient."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from embinv.data.pairs import batch_rows
from embinv.diffusion.schedule import MIN_TIME
from embinv.training.engine import LocalEngine
from embinv.training.loop import RunState, run
from embinv.training.objective import OBJECTIVES
from embinv.training.step import step_generator
from tests.fakes import awaken
from tests.training.recording import same, settings, weights_of

ROWS, BATCH, STEPS = 150, 64, 5  # an epoch is two steps and leaves 22 rows out
SPLITS = [(1, 2), (1, 4), (2, 1), (2, 2), (4, 8)]


@dataclass(frozen=True)
class Pass:
    """What one pass was made of: draws, z_t [B, L], embedding [B, D], weights [M]."""

    draws: object
    z_t: torch.Tensor
    embedding: torch.Tensor
    weights: torch.Tensor


class FrozenEngine(LocalEngine):
    """A worker whose weights never move; keeps each pass, and the mean gradient of each step's passes."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.draws, self.made, self.gradients = None, [], []

    def loss(self, z_t, embedding, positions, targets, weights):
        self.made.append(Pass(self.draws, z_t, embedding, weights))
        return super().loss(z_t, embedding, positions, targets, weights)

    def step(self, rate):
        self.passes += 1
        if self.passes % self.accumulation:
            return None
        self.gradients.append({name: p.grad for name, p in self.model.named_parameters() if p.grad is not None})
        self.optimizer.zero_grad(set_to_none=True)
        return 1.0


@dataclass(frozen=True)
class Step:
    """One step of all workers together, texts in the order of its rows; `weights` are those of the mean over parts."""

    t: torch.Tensor
    z_t: torch.Tensor
    embedding: torch.Tensor
    weights: torch.Tensor
    gradient: dict


@pytest.fixture
def steps_of(toy, monkeypatch):
    """Returns a function (workers, passes, first step) -> the steps of a run of STEPS."""
    pairs = toy.pairs.take(np.arange(ROWS) % len(toy.pairs))
    objective = OBJECTIVES["mdlm"]

    def noting(engine, x_0, embedding, ids, chosen, draws):
        engine.draws = draws
        return objective.loss(engine, x_0, embedding, ids, chosen, draws)

    monkeypatch.setitem(OBJECTIVES, "mdlm", replace(objective, loss=noting))

    def made(workers, passes, first=0):
        usual = {"batch_size": BATCH, "max_steps": STEPS, "validations": 1, "loss_weight": "nelbo", "seed": 3}
        chosen = settings(**usual, embedding_noise=0.1, workers=workers, gradient_accumulation=passes)
        engines = []
        for rank in range(workers):
            kind = type("Worker", (FrozenEngine,), {"rank": rank, "world": workers})
            engine, ema = toy.start(chosen, kind)
            awaken(engine.model, scale=0.1)
            list(run(engine, ema, pairs, toy.pairs, toy.ids, chosen, RunState(step=first)))
            engines.append(engine)
        return [together(engines, passes, step) for step in range(STEPS - first)]

    return made


def together(engines, passes, step):
    parts = [engine.made[step * passes + micro] for micro in range(passes) for engine in engines]
    gradients = [engine.gradients[step] for engine in engines]
    return Step(
        torch.cat([part.draws.t for part in parts]),
        torch.cat([part.z_t for part in parts]),
        torch.cat([part.embedding for part in parts]),
        torch.cat([part.weights for part in parts]) / len(parts),
        {name: sum(gradient[name] for gradient in gradients) / len(engines) for name in gradients[0]},
    )


def assert_same_step(found, whole):
    assert torch.equal(found.t, whole.t)
    assert torch.equal(found.z_t, whole.z_t)
    assert torch.equal(found.embedding, whole.embedding)
    assert torch.allclose(found.weights, whole.weights, rtol=1e-6)
    assert found.gradient.keys() == whole.gradient.keys()
    for name, gradient in whole.gradient.items():
        assert (found.gradient[name] - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize(("workers", "passes"), SPLITS)
def test_split_step_has_the_rows_times_masks_noise_and_gradient_of_the_whole(steps_of, workers, passes):
    whole, split = steps_of(1, 1), steps_of(workers, passes)
    assert len(whole) == len(split) == STEPS
    for found, expected in zip(split, whole, strict=True):
        assert len(found.z_t) == BATCH
        assert_same_step(found, expected)
    assert all(gradient.any() for gradient in whole[0].gradient.values())
    assert not torch.equal(whole[0].z_t, whole[1].z_t)


@pytest.mark.parametrize(("workers", "passes"), SPLITS)
def test_run_goes_on_with_other_workers_and_accumulation_as_it_would_have(steps_of, workers, passes):
    whole, later = steps_of(1, 1), steps_of(workers, passes, first=3)
    assert len(later) == 2
    for found, expected in zip(later, whole[3:], strict=True):
        assert_same_step(found, expected)


def test_low_discrepancy_times_are_spread_over_the_whole_step_not_over_each_part(steps_of):
    for step in steps_of(2, 2):
        gaps = step.t.double().sort().values.diff()
        assert torch.allclose(gaps, torch.full((BATCH - 1,), (1 - MIN_TIME) / BATCH, dtype=torch.float64), atol=1e-6)


def test_rows_of_a_split_step_are_those_of_batch_rows(toy, steps_of):
    pairs = toy.pairs.take(np.arange(ROWS) % len(toy.pairs))
    for number, step in enumerate(steps_of(2, 4)):
        x_0 = torch.from_numpy(pairs.token_ids[batch_rows(ROWS, BATCH, number, 3)]).long()
        seen = step.z_t != toy.ids.mask_id
        assert torch.equal(step.z_t[seen], x_0[seen])


def test_each_pass_of_each_worker_has_dropout_of_its_own_that_is_not_the_steps_draws(toy, monkeypatch):
    chosen = settings(workers=2, gradient_accumulation=2, max_steps=3, validations=1)
    started = [toy.start(chosen, type("Worker", (FrozenEngine,), {"rank": rank, "world": 2})) for rank in range(2)]
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for engine, ema in started:
        next(run(engine, ema, toy.pairs, toy.pairs, toy.ids, chosen, RunState()))  # up to the progress of the last step
    assert len(seeds) == len(set(seeds)) == 2 * 2 * 3
    assert not {step_generator(chosen.seed, step, 0).initial_seed() for step in range(3)} & set(seeds)


def test_weights_of_a_run_end_alike_whatever_its_accumulation(toy):
    ends = []
    for passes in (1, 4):
        chosen = settings(max_steps=6, validations=1, gradient_accumulation=passes)
        started, ema = toy.start(chosen)
        start = weights_of(started.model)
        # plain descent: AdamW's first step is the gradient's sign, where rounding is a whole step
        optimizer = torch.optim.SGD(started.model.parameters(), lr=0.1)
        optimizer.param_groups[0]["initial_lr"] = 0.1
        engine = LocalEngine(started.model, optimizer, passes, 1.0)
        list(run(engine, ema, toy.pairs, toy.pairs, toy.ids, chosen, RunState()))
        ends.append(weights_of(engine.model))
    one, other = ends
    assert not same(one, start)
    way = sum(float((one[name] - start[name]).square().sum()) for name in one) ** 0.5
    apart = sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5
    assert apart < 1e-4 * way
