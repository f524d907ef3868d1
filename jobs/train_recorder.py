"""What rank 0 leaves of a training run: its log, a line a moment, trackers, the plot, recovered texts, checkpoints."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np

from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.config import Config
from embinv.data.pairs import Pairs
from embinv.data.schema import PairsRecipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.inverter_model import InverterModel, count_parameters
from embinv.provenance.sittings import PROVENANCE_FILE, read_provenance
from embinv.spaces.moments import moments_of
from embinv.training.ema import EMA
from embinv.training.engine import Engine
from embinv.training.examples import Example, recover_examples
from embinv.training.flops import device_peak, flops_per_sample, largest_matmul
from embinv.training.loop import Progress, RunState, Validated
from embinv.training.objective import OBJECTIVES
from embinv.training.plot import draw_training
from embinv.training.step import PARTS, TokenIds
from embinv.training.trackers import Trackers
from embinv.training.tracking import TrackedRun, finite
from jobs.progress import duration

PROGRESS_FILE = "progress.jsonl"
VALIDATIONS_FILE = "validations.jsonl"
EXAMPLES_FILE = "examples.jsonl"
LOG_FILE = "train.log"
PLOT_FILE = "training.png"
UNITS = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6}
SHOWN = 150  # characters of a recovered text in the log


class Recorder:
    """Writes down a run as it goes on; made on rank 0 only, once its state is restored.

    Args:
        out: the run's folder.
        config: with precision and batch size as they came out.
        recipe: of the pairs.
        tokenizer: turns recovered ids into texts.
        vocabulary: of the model.
        training: the split that is learnt from, for the statistics of its vectors.
        validation: the split whose first texts are recovered at each validation.
        model: the whole model, in any state: its architecture says how much arithmetic a text is.
        engine: this worker's device and place.
        step: what the run goes on from; what was noted of later steps is dropped.
        train_texts: what a checkpoint says of the texts of the split, see `train_identity.train_texts`.
    """

    def __init__(
        self,
        out: Path,
        config: Config,
        recipe: PairsRecipe,
        tokenizer: TextTokenizer,
        vocabulary: Vocabulary,
        training: Pairs,
        validation: Pairs,
        model: InverterModel,
        engine: Engine,
        step: int,
        train_texts: dict[str, Any],
    ) -> None:
        self.out, self.train_texts = out, train_texts
        self.config, self.recipe, self.tokenizer, self.vocabulary = config, recipe, tokenizer, vocabulary
        self.validation, self.device = validation, engine.device
        self.objective = OBJECTIVES[model.config.family]
        ends = vocabulary.ends(recipe.eos_id, recipe.pad_id)
        self.ids = TokenIds(model.config.mask_id, *ends, vocabulary.other_id)
        moments = moments_of(training.embeddings[:, : recipe.encoder.dim])  # of a corrector the wanted ones
        self.statistics, self.shape = moments.statistics(), moments.shape()
        self.languages = sorted(set(training.langs))
        for name in (PROGRESS_FILE, VALIDATIONS_FILE, EXAMPLES_FILE):
            forget_after(out / name, step)
        run = TrackedRun(out, config.name, config.model_dump(mode="json"), step)
        self.trackers = Trackers(config.training.trackers, run, self.say)

        settings = config.training
        micro_batch = settings.texts_per_step // (engine.world * settings.gradient_accumulation)
        peak = device_peak(engine.device, settings.precision, largest_matmul(model, micro_batch))
        self.flops_per_text = flops_per_sample(model)
        self.peak = peak.flops_per_second * engine.world
        self.yardstick = (
            f"{flop(self.flops_per_text)} a text; MFU is the share of {flop(self.peak)}/s "
            f"({peak.source}, {engine.world} worker(s))"
        )

    def say(self, line: str) -> None:
        """Adds a line to the run's log, which the driver shows."""
        with (self.out / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def progress(self, event: Progress) -> None:
        """One line to read, one to plot, and the same figures for the trackers."""
        tokens = event.samples_per_second * self.recipe.seq_len
        utilisation = event.samples_per_second * self.flops_per_text / self.peak
        left = event.seconds * (1 / event.share - 1) if event.share > 0 else 0.0
        skipped = f"  {event.skipped:,} skipped" if event.skipped else ""
        self.say(
            f"step {event.step:>6,}  {event.share:>4.0%}  loss {event.loss:.3f}  |g| {event.gradient_norm:.2f}  "
            f"rate {event.rate:.2f}  {event.samples_per_second:,.0f} samples/s  {tokens:,.0f} tokens/s  "
            f"MFU {utilisation:.0%}{skipped}  {duration(left)} left"
        )
        figures = {
            "loss": event.loss,
            "cross_entropy": event.cross_entropy,
            "gradient_norm": event.gradient_norm,
            "samples_per_second": event.samples_per_second,
            "tokens_per_second": tokens,
            "model_flops_utilisation": utilisation,
        }
        known, by_part = finite(figures), f"loss_by_{self.objective.by}"
        row = {
            "step": event.step,
            "seconds": round(event.seconds, 2),
            "rate": event.rate,
            "skipped": event.skipped,
            **{name: known.get(name) for name in figures},
            by_part: [value if np.isfinite(value) else None for value in event.loss_by_part],
        }
        add_lines(self.out / PROGRESS_FILE, [row])
        parts = {f"{by_part}/{range_of(i)}": value for i, value in enumerate(event.loss_by_part)}
        learning_rate = {"learning_rate": event.rate * self.config.training.learning_rate, "skipped": event.skipped}
        self.trackers.scalars(
            event.step, {**{f"train/{name}": value for name, value in (figures | learning_rate).items()}, **parts}
        )

    def validated(self, event: Validated, ema: EMA, state: RunState) -> None:
        """Saves the EMA weights as `last`, and as `checkpoint` if they are the best so far; shows what they recover."""
        figures, model = event.figures, ema.model
        before = figures.hypothesis_accuracy
        self.say(
            f"step {state.step:>6,}  validation: {figures.token_accuracy:.1%} of tokens {self.objective.generation}, "
            f"{figures.exact_match:.1%} whole texts, {self.objective.measure} {figures.nats:.3f}"
            f"{'' if before is None else f'; the hypotheses had {before:.1%} of tokens'}"
            f"{'  (best)' if event.best else ''}"
        )
        row = {"step": state.step, "seconds": round(state.seconds, 2), "n": figures.n, **finite(figures.as_row())}
        add_lines(self.out / VALIDATIONS_FILE, [row])
        examples = self._examples(model, state.step)
        checkpoint = CheckpointConfig(
            name=self.config.name,
            model=model.config,  # type: ignore[arg-type]
            pairs=self.recipe,
            training=self._summary(model, state, figures.as_row(), figures.n),
            statistics=self.statistics,
        )
        made = read_provenance(self.out / PROVENANCE_FILE)
        for name in ("last", "checkpoint") if event.best else ("last",):
            save_checkpoint(self.out / name, model, checkpoint, self.tokenizer, self.vocabulary, self.shape, made)
        plot = self.out / PLOT_FILE
        draw_training(plot, read_lines(self.out / PROGRESS_FILE), state.history, self._title(state), self.yardstick)
        self.trackers.scalars(state.step, {f"validation/{name}": value for name, value in figures.as_row().items()})
        rows = [(str(example.id), example.original, example.recovered) for example in examples]
        self.trackers.table(state.step, "examples", ("id", "original", f"recovered {self.objective.generation}"), rows)
        self.trackers.picture(state.step, "training", plot)

    def close(self, finished: bool) -> None:
        """Ends what is shown elsewhere; `finished` says whether the run came to its end."""
        self.trackers.close(finished)

    def _examples(self, model: InverterModel, step: int) -> list[Example]:
        """The fixed texts as they are recovered now, in the log and in EXAMPLES_FILE."""
        steps = self.config.training.validation_steps
        decode = partial(self.objective.decode, model)
        examples = recover_examples(decode, self.validation, self._read, self.ids, steps, self.device)
        for place, example in enumerate(examples, start=1):
            self.say(f"  {place}. was   {shortened(example.original)}\n     read  {shortened(example.recovered)}")
        add_lines(self.out / EXAMPLES_FILE, [{"step": step, **asdict(example)} for example in examples])
        return examples

    def _read(self, ids: np.ndarray) -> list[str]:
        """The model's ids [N, L] as texts."""
        return [self.tokenizer.decode(row) for row in self.vocabulary.original(ids).tolist()]

    def _title(self, state: RunState) -> str:
        return f"{self.config.name}: {state.step:,} steps in {duration(state.seconds)}"

    def _summary(self, model: InverterModel, state: RunState, row: dict[str, float], n: int) -> dict[str, Any]:
        samples = state.step * self.config.training.texts_per_step
        speed = samples / state.seconds
        return {
            "languages": self.languages,
            **self.train_texts,
            "steps": state.step,
            "samples": samples,
            "seconds": round(state.seconds, 1),
            "samples_per_second": round(speed, 1),
            "tokens_per_second": round(speed * self.recipe.seq_len, 1),
            "model_flops_utilisation": round(speed * self.flops_per_text / self.peak, 4),
            "skipped_steps": state.skipped,
            "parameters": count_parameters(model)["total"],
            "parameters_non_embedding": count_parameters(model)["non_embedding"],
            "validation_texts": n,
            "validation_steps": self.config.training.validation_steps,
            **{f"validation_{name}": round(value, 4) for name, value in row.items()},
        }


def range_of(part: int) -> str:
    """The times or places of a part, as in 0.3-0.4."""
    return f"{part / PARTS:.1f}-{(part + 1) / PARTS:.1f}"


def flop(count: float) -> str:
    """A number of operations in a unit that reads well, as in 57.9 MFLOP."""
    unit = next((unit for unit in UNITS if count >= UNITS[unit]), "M")
    return f"{count / UNITS[unit]:.3g} {unit}FLOP"


def shortened(text: str) -> str:
    """A text on one line of the log."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def add_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Adds JSON lines to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{dumps(row, ensure_ascii=False, allow_nan=False)}\n" for row in rows))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole JSON lines of a file; others are left out, and so is a file that is not there.

    A crash cuts the last line short, and a power cut can leave a file of its right size with zeros in it.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
    rows: list[dict[str, Any]] = []
    for line in lines:
        with suppress(ValueError):
            rows.append(loads(line))
    return rows


def forget_after(path: Path, step: int) -> None:
    """Drops the lines of steps that a crash took back."""
    kept = [row for row in read_lines(path) if row["step"] <= step]
    unfinished = path.with_suffix(".partial")
    unfinished.unlink(missing_ok=True)
    add_lines(unfinished, kept)
    os.replace(unfinished, path)
