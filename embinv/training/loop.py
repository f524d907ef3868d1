"""The training loop: steps, validations and when to stop, as a stream of events.

It yields what happened and leaves printing, saving and reporting to whoever drives it. Every draw depends on (seed,
step, rank) alone, so a run that comes back from its state goes on as if it had never stopped. It knows neither
Ray nor DeepSpeed: those stand behind `Engine`.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from embinv.data.pairs import Pairs, batch_rows
from embinv.training.ema import EMA
from embinv.training.engine import Engine
from embinv.training.lr_schedule import SCHEDULES
from embinv.training.settings import TrainingSettings
from embinv.training.step import step_generator, to_tensors, training_loss
from embinv.training.validation import Validation, validate

PROGRESS_EVERY = 2.0  # seconds


@dataclass
class RunState:
    """Where a run stands: all that a resume needs beside weights, optimizer and EMA.

    Attributes:
        step: optimizer steps made.
        seconds: time spent, over all sittings.
        validations: validations made.
        best: the best token accuracy from a full mask so far.
        since_best: validations since then.
        finished: why the run ended, if it has.
        history: one row a validation, for the plot.
    """

    step: int = 0
    seconds: float = 0.0
    validations: int = 0
    best: float = -1.0
    since_best: int = 0
    finished: str | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Something to show while training goes on."""

    step: int
    share: float
    seconds: float
    loss: float
    rate: float
    samples_per_second: float


@dataclass(frozen=True)
class Validated:
    """A point at which the run can be saved; `best` says whether it is better than all before it."""

    figures: Validation
    best: bool
    last: bool


@dataclass(frozen=True)
class TokenIds:
    """The ids that are not content."""

    mask_id: int
    eos_id: int
    pad_id: int


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

    Args:
        engine: moves the weights.
        ema: follows them.
        training: the split that is learnt from.
        validation: the split that is generated from a full mask.
        ids: mask, EOS and PAD.
        settings: the config's `training` section.
        state: where to go on from; kept up to date in place before each event.

    Raises:
        ValueError: the loss is not finite; the message says what to lower.
    """
    micro_batch = settings.batch_size // (engine.world * settings.gradient_accumulation)
    schedule = SCHEDULES[settings.schedule]
    began = time.monotonic() - state.seconds
    shown, shown_step, losses = time.monotonic(), state.step, []
    while state.finished is None:
        share = _share(state, settings)
        rate = schedule(share, settings.warmup, settings.decay)
        total = torch.zeros((), device=engine.device)
        for micro in range(settings.gradient_accumulation):
            place = state.step * settings.gradient_accumulation + micro
            rows = batch_rows(len(training), micro_batch, place, settings.seed, engine.rank, engine.world)
            x_0, embedding = to_tensors(training, rows, engine.device)
            generator = step_generator(settings.seed, place, engine.rank)
            torch.manual_seed(generator.initial_seed())  # dropout
            loss = training_loss(engine, x_0, embedding, ids.mask_id, settings.loss_weight, generator)
            engine.backward(loss)
            engine.step(rate)
            total += loss.detach()
        ema.update(engine.weights())
        state.step += 1
        losses.append(total / settings.gradient_accumulation)
        state.seconds = engine.agree(time.monotonic() - began)

        share = _share(state, settings)
        now = time.monotonic()
        if share >= 1.0:
            state.finished = "steps" if state.step >= settings.max_steps else "minutes"
        if now - shown >= PROGRESS_EVERY or state.finished:
            mean = _finite_mean(losses, state.step)
            speed = (state.step - shown_step) * settings.batch_size / max(now - shown, 1e-9)
            yield Progress(state.step, share, state.seconds, mean, rate, speed)
            shown, shown_step, losses = time.monotonic(), state.step, []

        if state.finished or share * settings.validations >= state.validations + 1:
            if losses:
                _finite_mean(losses, state.step)  # weights that are lost must not be saved
            figures = validate(
                ema.model, validation, ids.mask_id, (ids.eos_id, ids.pad_id), settings.validation_steps, engine
            )
            event = _record(state, figures, settings)
            state.seconds = engine.agree(time.monotonic() - began)
            yield event
            began = time.monotonic() - state.seconds  # saving is not training time
            shown, shown_step = time.monotonic(), state.step


def _share(state: RunState, settings: TrainingSettings) -> float:
    """How much of the run is done, in [0, 1]: by steps or by minutes, whichever is further."""
    by_minutes = 0.0 if settings.minutes is None else state.seconds / (60.0 * settings.minutes)
    return min(1.0, max(state.step / settings.max_steps, by_minutes))


def _finite_mean(losses: list[torch.Tensor], step: int) -> float:
    mean = float(torch.stack(losses).mean())
    if mean != mean or mean in (float("inf"), float("-inf")):
        raise ValueError(
            f"the loss is {mean} at step {step}; lower training.learning_rate (and muon_learning_rate), "
            "or set training.precision float32"
        )
    return mean


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
