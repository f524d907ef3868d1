"""One run of the recipe comparison: trains a variant for as long as all others, and measures it once at the end.

The step is the product's (embinv/training), on `LocalEngine`, without Ray and DeepSpeed. Only training counts as time.

Shapes: B batch, L length, D embedding, N held-out texts.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.clocks import Clocks
from benchmarks.loops import start_ours
from benchmarks.recipe_variants import Variant
from embinv.config import Config
from embinv.data.pairs import Pairs, batch_rows, read_pairs
from embinv.data.schema import read_recipe
from embinv.data.tokenizer import content
from embinv.data.vocabulary import Vocabulary
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.strategies import STRATEGIES
from embinv.metrics.figures import Figure
from embinv.metrics.tokens import exact_match, token_accuracy
from embinv.models.inverter_model import count_parameters
from embinv.models.mdlm import ConditionalMDLM
from embinv.training.lr_schedule import SCHEDULES
from embinv.training.precision import resolve_precision
from embinv.training.step import TokenIds, step_generator, to_tensors
from embinv.training.validation import validate

PASSES = (8, 1)  # of a generation; the first is what variants are compared by
BATCH = 128  # texts that are generated together
WARM_UP = 3  # steps before steps are timed
ROUNDS, STEPS = 3, 12  # of a calibration

OnProgress = Callable[[float, float, str], None]
"""(share of the training that is done, seconds left, what to say of it)."""


@dataclass(frozen=True)
class Data:
    """Pairs with the model's token ids."""

    training: Pairs
    held_out: Pairs
    vocab_size: int
    embedding_dim: int
    seq_len: int
    ids: TokenIds


def read_data(folder: Path, texts: int) -> Data:
    """Reads the training split, and `texts` held-out texts of the validation split, chosen by a fixed seed.

    Raises:
        ValueError: there are fewer.
    """
    recipe = read_recipe(folder)
    training, held_out = read_pairs(folder, "train"), read_pairs(folder, "validation").sample(texts, 0)
    if len(held_out) < texts:
        raise ValueError(f"{folder} holds out {len(held_out):,} texts for validation; lower --texts or raise --rows")
    ends = (recipe.eos_id, recipe.pad_id)
    vocabulary = Vocabulary.of(training.token_ids, recipe.vocab_size, ends, recipe.pad_id)  # ids are never turned back
    eos_id, pad_id = vocabulary.ends(*ends)
    return Data(
        training.renumbered(vocabulary),
        held_out.renumbered(vocabulary),
        vocabulary.size,
        recipe.encoder.dim,
        recipe.seq_len,
        TokenIds(vocabulary.size, eos_id, pad_id, vocabulary.other_id),
    )


class Trainee:
    """A variant's model in training.

    Args:
        variant: what to train.
        config: its settings.
        data: what to learn from.
    """

    def __init__(self, variant: Variant, config: Config, data: Data) -> None:
        self.variant, self.settings, self.data = variant, config.training, data
        torch.manual_seed(self.settings.seed)
        self.model = variant.model(config.model.resolve(data.vocab_size, data.embedding_dim, data.seq_len))
        self.engine, self.ema = start_ours(self.model, self.settings)
        self.steps = self.skipped = 0

    def step(self, share: float) -> Tensor:
        """Makes one step whose middle is at `share` of the run; returns its loss without gradient."""
        settings, data = self.settings, self.data
        rate = SCHEDULES[settings.schedule](share, settings.warmup, settings.decay)
        rows = batch_rows(len(data.training), settings.texts_per_step, self.steps, settings.seed)
        x_0, embedding = to_tensors(data.training, rows, self.engine.device)
        torch.manual_seed(step_generator(settings.seed, self.steps, 1).initial_seed())  # dropout
        draws = step_generator(settings.seed, self.steps, 0)
        loss = self.variant.objective(self.engine, x_0, embedding, data.ids, settings, draws)
        self.engine.backward(loss)
        norm = self.engine.step(rate)
        self.steps += 1
        if norm is None or not math.isfinite(norm):
            self.skipped += 1
        else:
            self.ema.update(self.engine.weights())
        return loss.detach()

    def train(self, seconds: float | None, steps: int | None, on_progress: OnProgress) -> dict[str, Any]:
        """Trains for so many seconds or so many steps; returns what it took."""
        assert (seconds is None) != (steps is None)
        recent: list[Tensor] = []
        spent, clocks = 0.0, Clocks()

        def share_done(ahead: float = 0.0) -> float:
            """`ahead` steps later, at the pace so far; a step takes the rate of its middle, as in the product."""
            if seconds is None:
                return (self.steps + ahead) / (steps or 1)
            return (spent + ahead * spent / max(1, self.steps)) / seconds

        while (share := share_done()) < 1.0:
            recent = [*recent[-99:], self.step(min(1.0, share_done(ahead=0.5)))]
            spent = time.perf_counter() - clocks.wall
            left = (seconds - spent) if seconds else spent / self.steps * ((steps or 0) - self.steps)
            on_progress(share, max(0.0, left), f"step {self.steps:,}")
        samples, cores = self.steps * self.settings.texts_per_step, clocks.cores_used()
        return {
            "steps": self.steps,
            "skipped": self.skipped,
            "samples": samples,
            "seconds": round(spent, 2),
            "samples_per_second": round(samples / spent, 1),
            "cores_used": cores,
            "training_loss": round(float(torch.stack(recent).mean()), 4),  # of the last 100 steps
        }


@torch.no_grad()
def measure(trainee: Trainee) -> dict[str, Any]:
    """The EMA model's figures on the held-out texts, in float32."""
    data, model, ids = trainee.data, trainee.ema.model, trainee.data.ids
    assert isinstance(model, ConditionalMDLM)
    ends = (ids.eos_id, ids.pad_id)
    originals = [content(row, ends) for row in data.held_out.token_ids.tolist()]
    written = {passes: generate(trainee, passes) for passes in PASSES}
    compared = written[PASSES[0]]
    gaps = validate(model, data.held_out, ids, 1, trainee.engine)
    figures: dict[str, Any] = {
        f"token_accuracy_{passes}_passes": _shown(token_accuracy(originals, found)) for passes, found in written.items()
    }
    figures["exact_match"] = _shown(exact_match(originals, compared))
    figures["nelbo"] = round(gaps.nats, 4)
    figures |= {f"gap_filling_at_{share:.0%}_mask": round(v, 4) for share, v in gaps.masked_accuracy.items()}
    right = [sum(a == b for a, b in zip(x, y, strict=False)) for x, y in zip(originals, compared, strict=True)]
    return {
        "held_out_texts": len(originals),
        "figures": figures,
        # of each held-out text, so that two runs can be compared text by text
        "right": " ".join(map(str, right)),
        "lengths": " ".join(str(len(original)) for original in originals),
    }


def generate(trainee: Trainee, passes: int) -> list[list[int]]:
    """Content tokens of N texts, each written from its vector and a full mask by the EMA model."""
    data, found = trainee.data, []
    ends = (data.ids.eos_id, data.ids.pad_id)
    for start in range(0, len(data.held_out), BATCH):
        rows = np.arange(start, min(start + BATCH, len(data.held_out)))
        _, embedding = to_tensors(data.held_out, rows, trainee.engine.device)
        request = DecodingRequest(embedding, data.seq_len, data.ids.mask_id, passes, other_id=data.ids.other_id)
        denoiser = trainee.variant.generation(trainee.ema.model)
        tokens = final_state(STRATEGIES["confidence"](denoiser, request)).tokens  # [B, L]
        found += [content(row, ends) for row in tokens.tolist()]
    return found


def _shown(figure: Figure) -> dict[str, float]:
    return {"value": round(figure.value, 5), "standard_error": round(figure.standard_error, 5)}


def train_and_measure(
    variant: Variant, config: Config, data: Data, steps: int | None, on_progress: OnProgress
) -> dict[str, Any]:
    """A whole run: for `steps`, or else for the config's minutes."""
    minutes = config.training.minutes
    trainee = Trainee(variant, config, data)
    spent = trainee.train(60 * minutes if minutes and steps is None else None, steps, on_progress)
    on_progress(1.0, 0.0, f"measuring on {len(data.held_out):,} held-out texts")
    began = time.perf_counter()
    measured = measure(trainee)
    return {
        **spent,
        "measuring_seconds": round(time.perf_counter() - began, 1),
        **measured,
        "training_texts": len(data.training),
        "vocabulary": data.vocab_size,
        "parameters": count_parameters(trainee.model),
        "precision": resolve_precision(config.training.precision, config.training.device),
    }


def measure_pace(variant: Variant, config: Config, base: Variant, base_config: Config, data: Data) -> dict[str, float]:
    """What a variant's step costs beside the base's: rounds of each in turn, so that both meet the same machine.

    Returns:
        `seconds` and `base_seconds` of a step: a round's mean, since steps of one variant can differ (self-conditioning
        looks twice in half of them), then the median over rounds; `ratio`, the median of the rounds' ratios.
    """
    pair = (Trainee(variant, config, data), Trainee(base, base_config, data))
    for trainee in pair:
        timed_steps(trainee, WARM_UP)
    rounds = [[fmean(timed_steps(trainee, STEPS)) for trainee in pair] for _ in range(ROUNDS)]
    own, other = zip(*rounds, strict=True)
    return {
        "seconds": round(median(own), 5),
        "base_seconds": round(median(other), 5),
        "ratio": round(median(mine / its for mine, its in rounds), 4),
    }


def timed_steps(trainee: Trainee, count: int) -> list[float]:
    """Seconds of each of `count` steps at the full rate."""
    marks = [time.perf_counter()]
    for _ in range(count):
        trainee.step(0.5)
        marks.append(time.perf_counter())
    return [after - before for before, after in pairwise(marks)]
