import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embinv.data.pairs import batch_rows
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.confidence import decode_by_confidence
from embinv.diffusion.schedule import TIME_SAMPLERS
from embinv.training import loop
from embinv.training.loop import Progress, RunState, Validated
from embinv.training.lr_schedule import SCHEDULES
from embinv.training.objective import OBJECTIVES
from embinv.training.step import step_generator
from tests.training.recording import RecordingEngine, events, finish, same, settings, weights_of


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def test_run_makes_exactly_max_steps_and_says_why_it_ended(toy):
    chosen, state = settings(), RunState()
    engine, ema = toy.start(chosen, RecordingEngine)
    seen = finish(toy, engine, ema, chosen, state)
    assert (state.step, state.finished, len(engine.rates), ema.updates) == (12, "steps", 12, 12)
    assert isinstance(seen[-1], Validated)
    assert seen[-1].last
    assert isinstance(seen[-2], Progress)
    assert (seen[-2].step, seen[-2].share) == (12, 1.0)


def test_validations_are_spread_evenly_and_kept_in_the_history(toy):
    chosen, state = settings(), RunState()
    engine, ema = toy.start(chosen)
    validated = [event for event in finish(toy, engine, ema, chosen, state) if isinstance(event, Validated)]
    assert [row["step"] for row in state.history] == [3, 6, 9, 12]
    assert [row["token_accuracy"] for row in state.history] == [event.figures.token_accuracy for event in validated]
    assert [event.last for event in validated] == [False, False, False, True]
    accuracies = [event.figures.token_accuracy for event in validated]
    assert [event.best for event in validated] == [a >= max(accuracies[: i + 1]) for i, a in enumerate(accuracies)]
    assert state.best == max(accuracies)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_rates_are_the_schedules_in_the_middle_of_each_step(toy, name):
    chosen = settings(schedule=name, warmup=0.25, decay=0.5)
    engine, ema = toy.start(chosen, RecordingEngine)
    finish(toy, engine, ema, chosen, RunState())
    assert engine.rates == pytest.approx([SCHEDULES[name]((step + 0.5) / 12, 0.25, 0.5) for step in range(12)])
    assert min(engine.rates) > 0  # neither the first nor the last step is wasted


class SlowEngine(RecordingEngine):
    """Takes ten seconds a step, and some more for the first one."""

    clock: Clock
    once = 0.0

    def step(self, rate):
        self.clock.now += 10.0 + self.once * (not self.rates)
        return super().step(rate)


def test_run_stops_when_its_minutes_are_used_up_and_the_schedule_fits_them(toy, monkeypatch):
    SlowEngine.clock = clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    chosen, state = settings(max_steps=10**9, minutes=2.0, warmup=0.25, decay=0.5), RunState()
    engine, ema = toy.start(chosen, SlowEngine)
    for event in events(toy, engine, ema, chosen, state):
        if isinstance(event, Validated):
            clock.now += 1000.0  # saving is not training time
    assert (state.step, state.seconds, state.finished) == (12, 120.0, "minutes")
    shares = [0.5 / 10**9, *((step + 0.5) / 12 for step in range(1, 12))]  # nothing is known of the first step's time
    assert engine.rates == pytest.approx([SCHEDULES["trapezoid"](share, 0.25, 0.5) for share in shares])
    assert min(engine.rates) > 0
    assert [row["step"] for row in state.history] == [3, 6, 9, 12]


def test_seconds_of_an_earlier_sitting_count(toy, monkeypatch):
    SlowEngine.clock = clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    chosen, state = settings(max_steps=10**9, minutes=2.0), RunState(step=5, seconds=90.0)
    engine, ema = toy.start(chosen, SlowEngine)
    finish(toy, engine, ema, chosen, state)
    assert (state.step, state.seconds) == (8, 120.0)


class CompilingEngine(SlowEngine):
    """Its first step takes a minute longer."""

    once = 60.0


@pytest.mark.parametrize(("step", "seconds"), [(0, 0.0), (5, 90.0)])
@pytest.mark.parametrize(("compiles", "counted"), [(True, 0.0), (False, 70.0)])
def test_first_step_of_a_sitting_counts_only_where_nothing_is_compiled(
    toy, monkeypatch, step, seconds, compiles, counted
):
    CompilingEngine.clock = clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    chosen = settings(max_steps=10**9, minutes=2.0, compile=compiles, validations=1)
    state = RunState(step=step, seconds=seconds)
    engine, ema = toy.start(chosen, CompilingEngine)
    seen = finish(toy, engine, ema, chosen, state)
    steps = 1 + max(0, math.ceil((120.0 - seconds - counted) / 10))
    assert (state.step, state.finished) == (step + steps, "minutes")
    assert state.seconds == seconds + counted + 10.0 * (steps - 1)
    speeds = [event.samples_per_second for event in seen if isinstance(event, Progress)]
    assert speeds == pytest.approx([4 / 70] * (not compiles) + [0.4] * (steps - 1))


def test_warm_up_of_minutes_begins_after_the_step_that_compiles(toy, monkeypatch):
    CompilingEngine.clock = clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    chosen = settings(max_steps=10**9, minutes=2.0, compile=True, validations=1, warmup=0.5, decay=0.25)
    engine, ema = toy.start(chosen, CompilingEngine)
    finish(toy, engine, ema, chosen, RunState())
    assert max(engine.rates[:2]) < 1e-6  # no time has passed yet
    assert engine.rates[2:5] == pytest.approx([12.5 / 60, (20 + 10 / 3) / 60, (30 + 3.75) / 60])


def test_progress_comes_as_often_however_often_a_run_validates_and_leaves_validations_out(toy, monkeypatch):
    SlowEngine.clock = clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop, "PROGRESS_EVERY", 30.0)
    denoising = OBJECTIVES["mdlm"]

    def slowly(*arguments):
        clock.now += 500.0
        return denoising.validate(*arguments)

    monkeypatch.setitem(OBJECTIVES, "mdlm", replace(denoising, validate=slowly))
    chosen = settings(validations=12)
    engine, ema = toy.start(chosen, SlowEngine)
    seen = []
    for event in events(toy, engine, ema, chosen, RunState()):
        seen.append(event)
        clock.now += 1000.0 * isinstance(event, Validated)
    assert sum(isinstance(event, Validated) for event in seen) == 12
    shown = [event for event in seen if isinstance(event, Progress)]
    assert [event.step for event in shown] == [3, 6, 9, 12]
    assert [event.samples_per_second for event in shown] == pytest.approx([0.4] * 4)
    losses = np.asarray(engine.losses).reshape(4, 3)
    assert [event.loss for event in shown] == pytest.approx(losses.mean(axis=1).tolist(), rel=1e-5)


def test_progress_gives_the_mean_loss_and_the_speed_since_the_last_one(toy, monkeypatch):
    SlowEngine.clock = clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    chosen = settings(max_steps=3, validations=1)
    engine, ema = toy.start(chosen, SlowEngine)
    shown = [event for event in finish(toy, engine, ema, chosen, RunState()) if isinstance(event, Progress)]
    assert [event.step for event in shown] == [1, 2, 3]
    assert [event.samples_per_second for event in shown] == pytest.approx([0.4] * 3)  # 4 texts in 10 seconds
    assert all(np.isfinite(event.loss) for event in shown)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_progress_is_the_mean_over_its_steps_computed_by_hand(toy, monkeypatch, accumulation):
    monkeypatch.setattr(loop, "PROGRESS_EVERY", math.inf)  # one progress, at the end
    chosen = settings(max_steps=5, validations=1, gradient_accumulation=accumulation, seed=3)
    engine, ema = toy.start(chosen, RecordingEngine)
    [shown] = [event for event in finish(toy, engine, ema, chosen, RunState()) if isinstance(event, Progress)]
    assert shown.loss == pytest.approx(np.mean(engine.losses), rel=1e-5)
    assert shown.gradient_norm == pytest.approx(np.mean([norm for norm in engine.norms if norm is not None]))
    assert len(engine.losses) == 5 * accumulation
    sums, counts = np.zeros(10), np.zeros(10)
    part = 4 // accumulation
    for place, (rows, entropies) in enumerate(engine.entropies):
        step, micro = divmod(place, accumulation)
        t = TIME_SAMPLERS[chosen.times](4, step_generator(3, step, 0))[micro * part : (micro + 1) * part]
        for row, entropy in zip(rows, entropies, strict=True):
            sums[int(t[row] * 10)] += entropy
            counts[int(t[row] * 10)] += 1
    assert counts.sum() > 20
    by_hand = [entropy / n if n else math.nan for entropy, n in zip(sums, counts, strict=True)]
    assert shown.loss_by_part == pytest.approx(by_hand, nan_ok=True)
    assert shown.skipped == 0


def test_each_progress_starts_anew(toy, monkeypatch):
    monkeypatch.setattr(loop, "PROGRESS_EVERY", 0.0)
    chosen = settings(max_steps=4, validations=1)
    engine, ema = toy.start(chosen, RecordingEngine)
    shown = [event for event in finish(toy, engine, ema, chosen, RunState()) if isinstance(event, Progress)]
    assert [event.loss for event in shown] == pytest.approx(engine.losses, rel=1e-6)
    assert [event.gradient_norm for event in shown] == pytest.approx(engine.norms)


@pytest.mark.parametrize("stopped_after", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_accumulation": 2}, {"embedding_noise": 0.1, "times": "uniform", "ema_share": 0.5}],
    ids=lambda changes: "-".join(changes) or "usual",
)
def test_resumed_run_equals_one_never_stopped_bit_for_bit(toy, tmp_path, stopped_after, changes):
    chosen = settings(**changes)
    whole = RunState()
    engine, ema = toy.start(chosen, dropout=0.2)
    finish(toy, engine, ema, chosen, whole)

    first, first_ema = toy.start(chosen, dropout=0.2)
    state, seen = RunState(), 0
    for event in events(toy, first, first_ema, chosen, state):
        seen += isinstance(event, Validated)
        if seen == stopped_after:
            first.save(tmp_path)
            save_file(weights_of(first_ema.model), tmp_path / "ema.safetensors")
            kept, updates = state.as_dict(), first_ema.updates
            break

    torch.rand(5)  # the global generator is somewhere else by now
    second, second_ema = toy.start(chosen, seed=9, dropout=0.2)  # and the weights start elsewhere
    second.load(tmp_path)
    second_ema.model.load_state_dict(load_file(tmp_path / "ema.safetensors"))
    second_ema.updates = updates
    resumed = RunState(**kept)
    finish(toy, second, second_ema, chosen, resumed)

    assert same(weights_of(engine.model), weights_of(second.model))
    assert same(weights_of(ema.model), weights_of(second_ema.model))
    timeless = [[{**row, "seconds": 0} for row in each.history] for each in (whole, resumed)]
    assert timeless[0] == timeless[1]
    assert {**resumed.as_dict(), "seconds": 0, "history": 0} == {**whole.as_dict(), "seconds": 0, "history": 0}


def test_finished_run_does_nothing_when_asked_again(toy):
    chosen, state = settings(), RunState()
    engine, ema = toy.start(chosen)
    finish(toy, engine, ema, chosen, state)
    before = weights_of(engine.model)
    assert finish(toy, engine, ema, chosen, state) == []
    assert same(weights_of(engine.model), before)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_epoch_shows_every_text_once(toy, accumulation):
    chosen = settings(max_steps=5, gradient_accumulation=accumulation, validations=1)  # 5 x 4 = the 20 texts
    engine, ema = toy.start(chosen, RecordingEngine)
    finish(toy, engine, ema, chosen, RunState())
    seen = torch.cat(engine.vectors)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, toy.pairs.embeddings.astype(np.float32).tolist()))


def test_rows_of_a_step_are_those_of_batch_rows(toy):
    chosen = settings(max_steps=7, validations=1, seed=3)
    engine, ema = toy.start(chosen, RecordingEngine)
    finish(toy, engine, ema, chosen, RunState())
    for step, vectors in enumerate(engine.vectors):
        rows = batch_rows(20, 4, step, seed=3)
        assert torch.equal(vectors, torch.from_numpy(toy.pairs.embeddings[rows]).float())


def test_run_without_progress_stops_early_and_says_so(toy):
    chosen = settings(
        max_steps=1000, validations=1000, early_stop_patience=3, learning_rate=1e-12, muon_learning_rate=1e-12
    )
    state = RunState()
    engine, ema = toy.start(chosen)
    seen = [event for event in finish(toy, engine, ema, chosen, state) if isinstance(event, Validated)]
    assert [event.best for event in seen] == [True] * 4  # of equals the newer is kept, and patience runs on
    assert [event.last for event in seen] == [False, False, False, True]
    assert (state.finished, state.step) == ("no better validation in 3", 4)


def test_too_few_rows_for_a_step_are_refused_with_the_fix(toy):
    chosen = settings(batch_size=32)
    engine, ema = toy.start(chosen)
    with pytest.raises(ValueError, match=r"20 training rows do not fill one step of 32; lower training.batch_size"):
        finish(toy, engine, ema, chosen, RunState())


def test_state_survives_json(toy):
    chosen, state = settings(), RunState()
    engine, ema = toy.start(chosen)
    finish(toy, engine, ema, chosen, state)
    state.skipped, state.skipped_in_a_row = 3, 1
    assert RunState(**json.loads(json.dumps(state.as_dict()))) == state


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_learnable_toy_problem_is_learnt_and_texts_come_from_their_own_vectors(toy, optimizer):
    rates = {"muon": {"learning_rate": 5e-3, "muon_learning_rate": 5e-3}, "adamw": {"learning_rate": 3e-3}}[optimizer]
    chosen = settings(optimizer=optimizer, max_steps=250, batch_size=20, validations=5, ema_decay=0.95, **rates)
    state = RunState()
    engine, ema = toy.start(chosen)
    finish(toy, engine, ema, chosen, state)
    nelbo = [row["nelbo"] for row in state.history]
    assert nelbo[-1] < 0.5 * nelbo[0]
    assert state.best > 0.9

    x_0 = torch.from_numpy(toy.pairs.token_ids).long()
    vectors = torch.from_numpy(toy.pairs.embeddings).float()
    content = ~torch.isin(x_0, torch.tensor([toy.ids.eos_id, toy.ids.pad_id]))
    with torch.no_grad():
        request = DecodingRequest(vectors, 8, toy.ids.mask_id, 4)
        said = final_state(decode_by_confidence(ema.model, request)).tokens
    own = (said == x_0)[content].double().mean().item()
    shuffled = (said.roll(1, dims=0) == x_0)[content].double().mean().item()
    assert own > 0.9
    assert own > 3 * shuffled
