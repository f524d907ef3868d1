"""Steps without a finite loss or gradient: left out, counted, and the end of the run if there are too many in a row."""

import itertools
import math

import pytest
import torch

from embinv.training import loop
from embinv.training.engine import LocalEngine
from embinv.training.loop import Progress, RunState, Validated
from embinv.training.step import all_or_nan
from tests.training.recording import RecordingEngine, events, finish, same, settings, weights_of


class PoisonedEngine(RecordingEngine):
    """The loss of chosen passes is NaN, as after a rate too high; keeps the weights before each pass."""

    poisoned = frozenset()

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.before = []

    def loss(self, z_t, embedding, positions, targets, weights):
        loss, entropies = super().loss(z_t, embedding, positions, targets, weights)
        broken = len(self.before) in self.poisoned
        self.before.append(weights_of(self.model))
        return (loss * math.nan, entropies * math.nan) if broken else (loss, entropies)


def poisoned_at(*passes, kind=PoisonedEngine):
    return type("PoisonedHere", (kind,), {"poisoned": frozenset(passes)})


def test_step_whose_loss_is_not_finite_moves_nothing_and_is_counted(toy, monkeypatch):
    monkeypatch.setattr(loop, "PROGRESS_EVERY", 0.0)
    chosen, state = settings(max_steps=8, validations=1), RunState()
    engine, ema = toy.start(chosen, poisoned_at(0, 3, 4))
    averages, seen = [weights_of(ema.model)], []
    for event in events(toy, engine, ema, chosen, state):
        seen.append(event)
        if isinstance(event, Progress):
            averages.append(weights_of(ema.model))
    shown = [event for event in seen if isinstance(event, Progress)]
    moved = [not same(a, b) for a, b in zip(engine.before, [*engine.before[1:], weights_of(engine.model)], strict=True)]
    assert moved == [False, True, True, False, False, True, True, True]
    assert [not same(a, b) for a, b in itertools.pairwise(averages)] == moved
    assert (state.step, state.skipped, state.skipped_in_a_row, ema.updates) == (8, 3, 0, 5)
    assert [event.skipped for event in shown] == [1, 1, 1, 2, 3, 3, 3, 3]
    assert [math.isnan(event.loss) for event in shown] == [not m for m in moved]
    assert [math.isnan(event.gradient_norm) for event in shown] == [not m for m in moved]
    assert all(math.isnan(value) for value in shown[0].loss_by_part)
    assert isinstance(seen[-1], Validated) and math.isfinite(seen[-1].figures.nats)


class BadGradientEngine(PoisonedEngine):
    """The loss is finite; the gradient of chosen passes is not."""

    def loss(self, *arguments):
        answer = LocalEngine.loss(self, *arguments)
        self.before.append(weights_of(self.model))
        return answer

    def backward(self, loss):
        super().backward(loss)
        if len(self.before) - 1 in self.poisoned:
            self.model.head_bias.grad[0] = math.inf


def test_step_whose_gradient_is_not_finite_moves_nothing_and_is_counted(toy):
    chosen, state = settings(max_steps=4, validations=1, warmup=0.0), RunState()
    engine, ema = toy.start(chosen, poisoned_at(1, 2, kind=BadGradientEngine))
    finish(toy, engine, ema, chosen, state)
    after = [*engine.before[1:], weights_of(engine.model)]
    assert [not same(a, b) for a, b in zip(engine.before, after, strict=True)] == [True, False, False, True]
    assert (state.step, state.skipped, ema.updates) == (4, 2, 2)


def test_one_broken_pass_drops_its_whole_step_and_no_other(toy):
    ends = []
    for kind in (poisoned_at(2), poisoned_at(3)):  # step 1 is passes 2 and 3
        chosen, state = settings(max_steps=3, validations=1, gradient_accumulation=2), RunState()
        engine, ema = toy.start(chosen, kind)
        finish(toy, engine, ema, chosen, state)
        assert (state.skipped, ema.updates) == (1, 2)
        ends.append(weights_of(engine.model))
    assert same(*ends)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_has_no_finite_gradient(bad):
    weight = torch.ones(3, requires_grad=True)
    loss = all_or_nan((weight * torch.tensor([1.0, 2.0, 0.0])).sum() + bad)  # its own gradient would be finite
    loss.backward()
    assert loss.isnan() and weight.grad is not None and bool(weight.grad.isnan().all())


def test_finite_loss_and_its_gradient_stay_as_they_are():
    weight = torch.full((3,), 0.1, requires_grad=True)
    loss = (weight * torch.tensor([1.0, 2.0, 0.0])).sum()
    assert all_or_nan(loss).item() == loss.item()
    all_or_nan(loss).backward()
    assert weight.grad is not None and weight.grad.tolist() == [1.0, 2.0, 0.0]


@pytest.mark.parametrize("validations", [1, 12])
def test_too_many_broken_steps_in_a_row_end_the_run_with_advice_and_leave_the_weights_as_they_were(toy, validations):
    chosen, state = settings(validations=validations, max_skipped=3), RunState()
    engine, ema = toy.start(chosen, poisoned_at(1, 2, 4, 5, 6, 7))
    start = weights_of(engine.model)
    advice = (
        r"no finite loss or gradient in 3 steps in a row, the last of them step 7; lower training.learning_rate "
        r"\(and muon_learning_rate\), or set training.precision float32"
    )
    with pytest.raises(ValueError, match=advice):
        finish(toy, engine, ema, chosen, state)
    assert (state.step, state.skipped, state.skipped_in_a_row, state.finished) == (7, 5, 3, None)
    assert ema.updates == 2
    assert not same(weights_of(engine.model), start)
    assert same(weights_of(engine.model), engine.before[4])
    assert all(weight.isfinite().all() for model in (engine.model, ema.model) for weight in model.parameters())


def test_resumed_run_counts_the_broken_steps_in_a_row_before_it(toy):
    chosen = settings(max_skipped=3)
    engine, ema = toy.start(chosen, poisoned_at(0))
    with pytest.raises(ValueError, match="in 3 steps in a row, the last of them step 6"):
        finish(toy, engine, ema, chosen, RunState(step=5, skipped=4, skipped_in_a_row=2))
