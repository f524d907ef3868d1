"""The training loop: steps, validations and when to stop, as a stream of events.

It yields what happened and leaves printing, saving and reporting to whoever drives it. Rows, times, masks and noise of
a step depend on (seed, step) alone, so a run that comes back from its state goes on as if it had never stopped, with
other workers or accumulation too; only dropout is each pass's own. It knows neither Ray nor DeepSpeed: those stand
behind `Engine`.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from embinv.data.pairs import Pairs, batch_rows
from embinv.training.ema import EMA
from embinv.training.engine import Engine
from embinv.training.lr_schedule import SCHEDULES
from embinv.training.objective import OBJECTIVES, Objective
from embinv.training.settings import TrainingSettings
from embinv.training.step import PARTS, StepLoss, TokenIds, all_or_nan, draw, step_generator, to_tensors
from embinv.training.validation import Validation

PROGRESS_EVERY = 2.0  # seconds


@dataclass
class RunState:
    """Where a run stands: all that a resume needs beside weights, optimizer and EMA.

    Attributes:
        step: optimizer steps made.
        seconds: time spent, over all sittings; the first step of a sitting is left out where blocks are compiled.
        validations: validations made.
        best: the best token accuracy of a validation so far.
        since_best: validations since then.
        skipped: steps that moved nothing, since a loss or gradient was not finite.
        skipped_in_a_row: those since the last step that did.
        finished: why the run ended, if it has.
        history: one row a validation, for the plot.
    """

    step: int = 0
    seconds: float = 0.0
    validations: int = 0
    best: float = -1.0
    since_best: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    finished: str | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Something to show while training goes on.

    Attributes:
        step: optimizer steps made.
        share: of the run that is done.
        seconds: of training, over all sittings.
        loss: mean over the steps since the last progress, in nats a token; NaN if all were skipped.
        rate: the learning rate's share of the full one.
        samples_per_second: over all workers.
        gradient_norm: mean over the same steps, before clipping.
        cross_entropy: of a token asked for, the mean over the same steps.
        loss_by_part: [PARTS] the same by time, or by place in the text; NaN where no token was asked for.
        skipped: steps of the whole run that moved nothing.
    """

    step: int
    share: float
    seconds: float
    loss: float
    rate: float
    samples_per_second: float
    gradient_norm: float
    cross_entropy: float
    loss_by_part: list[float]
    skipped: int


@dataclass(frozen=True)
class Validated:
    """A point at which the run can be saved; `best` says whether it is better than all before it."""

    figures: Validation
    best: bool
    last: bool


def run(
    engine: Engine,
    ema: EMA,
    training: Pairs,
    validation: Pairs,
    ids: TokenIds,
    settings: TrainingSettings,
    state: RunState,
) -> Iterator[Progress | Validated]:
    """Trains until the steps or minutes are used up, or until validations stop getting better.

    Minutes are of training and validating. What is done with a validation (saving) is left out; and, where blocks are
    compiled, the first step of each sitting, which can take a minute and would use up a short run's warm-up.

    Args:
        engine: moves the weights.
        ema: follows them.
        training: the split that is learnt from.
        validation: the split that is generated from its vectors alone, or of a corrector from its hypotheses.
        ids: mask, EOS and PAD, and `other`.
        settings: the config's `training` section.
        state: where to go on from; kept up to date in place before each event.

    Raises:
        ValueError: `max_skipped` steps in a row had no finite loss or gradient; the message says what to lower.
    """
    schedule, objective = SCHEDULES[settings.schedule], OBJECTIVES[ema.model.config.family]
    began = time.monotonic() - state.seconds
    window, compiling = _Window(state.seconds), settings.compiles
    while state.finished is None:
        rate = schedule(_share(state, settings, ahead=0.5), settings.warmup, settings.decay)
        norm = _make_step(engine, objective, training, ids, settings, state.step, rate, window)
        state.step += 1
        if norm is None:
            _note_skipped(state, settings)
        else:
            state.skipped_in_a_row = 0
            ema.update(engine.weights())
        if compiling:
            began = time.monotonic() - state.seconds
            window.timed, compiling = 0, False  # a step that took no time has no speed
        state.seconds = engine.agree(time.monotonic() - began)

        share = _share(state, settings)
        if share >= 1.0:
            state.finished = "steps" if state.step >= settings.max_steps else "minutes"
        since = state.seconds - window.began
        if since >= PROGRESS_EVERY or state.finished:
            speed = window.timed * settings.texts_per_step / max(since, 1e-9)
            yield window.progress(engine, state, share, rate, speed)
            window = _Window(state.seconds)

        if state.finished or share * settings.validations >= state.validations + 1:
            figures = objective.validate(ema.model, validation, ids, settings.validation_steps, engine)
            trained = state.seconds
            event = _record(state, figures, settings)
            state.seconds = engine.agree(time.monotonic() - began)
            window.began += state.seconds - trained  # validating is training time, but not a step's
            yield event
            began = time.monotonic() - state.seconds  # saving is not training time


@dataclass
class _Window:
    """What happened since the last progress, on this worker.

    `began` is in seconds of training, later by the validations since; `timed` counts the steps that took them.
    """

    began: float
    timed: int = 0
    losses: list[torch.Tensor] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    by_part: list[torch.Tensor] = field(default_factory=list)

    def progress(self, engine: Engine, state: RunState, share: float, rate: float, speed: float) -> Progress:
        """The same on every worker."""
        counted = len(self.losses)
        loss = float(torch.stack(self.losses).sum()) if counted else 0.0
        by_part = torch.stack(self.by_part).sum(dim=0).flatten().tolist() if counted else [0.0] * (2 * PARTS)
        loss, total, *sums = engine.total([loss, counted, *by_part])
        entropies, tokens = sums[:PARTS], sums[PARTS:]
        return Progress(
            state.step,
            share,
            state.seconds,
            loss / total if total else math.nan,
            rate,
            speed,
            sum(self.norms) / len(self.norms) if self.norms else math.nan,
            sum(entropies) / sum(tokens) if sum(tokens) else math.nan,
            [entropy / n if n else math.nan for entropy, n in zip(entropies, tokens, strict=True)],
            state.skipped,
        )


def _make_step(
    engine: Engine,
    objective: Objective,
    training: Pairs,
    ids: TokenIds,
    settings: TrainingSettings,
    step: int,
    rate: float,
    window: _Window,
) -> float | None:
    """Makes one optimizer step; returns its gradient norm, or None if nothing moved, on every worker alike."""
    passes, norm = settings.gradient_accumulation, None
    texts = settings.texts_per_step
    micro_batch = texts // (engine.world * passes)
    rows = batch_rows(len(training), texts, step, settings.seed)
    length, dim = training.token_ids.shape[1], training.embeddings.shape[1]
    draws = draw(settings, texts, length, dim, step_generator(settings.seed, step, 0))
    window.timed += 1
    made: list[StepLoss] = []
    for micro in range(passes):
        start = (micro * engine.world + engine.rank) * micro_batch
        mine = slice(start, start + micro_batch)
        x_0, embedding = to_tensors(training, rows[mine], engine.device)
        dropout = step_generator(settings.seed, step * passes + micro, 1 + engine.rank)  # stream 0 is the step's
        torch.manual_seed(dropout.initial_seed())
        made.append(objective.loss(engine, x_0, embedding, ids, settings, draws.take(mine)))
        engine.backward(all_or_nan(made[-1].loss))
        norm = engine.step(rate)
    if norm is None or not math.isfinite(norm):
        return None
    window.losses.append(torch.stack([part.loss.detach() for part in made]).mean())
    window.by_part.extend(part.by_part for part in made)
    window.norms.append(norm)
    return norm


def _note_skipped(state: RunState, settings: TrainingSettings) -> None:
    """Counts a step that moved nothing.

    Raises:
        ValueError: it was one too many in a row.
    """
    state.skipped += 1
    state.skipped_in_a_row += 1
    if state.skipped_in_a_row >= settings.max_skipped:
        raise ValueError(
            f"no finite loss or gradient in {state.skipped_in_a_row} steps in a row, the last of them step "
            f"{state.step}; lower training.learning_rate (and muon_learning_rate), or set training.precision float32"
        )


def _share(state: RunState, settings: TrainingSettings, ahead: float = 0.0) -> float:
    """How much of the run is done, in [0, 1]: by steps or by minutes, whichever is further.

    Args:
        state: where the run stands.
        settings: its length.
        ahead: so many steps later, at the run's pace so far. A rate is that of the middle of its step: at the start of
            the run's first step, and at the end of its last, the schedule is at 0 and the step would be wasted.
    """
    pace = state.seconds / state.step if state.step else 0.0
    by_minutes = 0.0 if settings.minutes is None else (state.seconds + ahead * pace) / (60.0 * settings.minutes)
    return min(1.0, max((state.step + ahead) / settings.max_steps, by_minutes))


def _record(state: RunState, figures: Validation, settings: TrainingSettings) -> Validated:
    """Notes a validation in the run's state and decides whether to stop early."""
    improved = figures.token_accuracy > state.best
    best = figures.token_accuracy >= state.best  # of two equals the newer: early on all of them are at 0
    state.validations = max(state.validations + 1, int(_share(state, settings) * settings.validations))
    state.best = max(state.best, figures.token_accuracy)
    state.since_best = 0 if improved else state.since_best + 1
    state.history.append({"step": state.step, "seconds": state.seconds, **figures.as_row()})
    patience = settings.early_stop_patience
    if state.finished is None and patience is not None and state.since_best >= patience:
        state.finished = f"no better validation in {patience}"
    return Validated(figures, best, state.finished is not None)
