"""What two recipes recover from the same vectors after the same minutes.

Both start from scratch on the same pairs with the same vocabulary, width and batch, and each writes held-out texts
from a full mask with the same decoder. Ours is cut where it ends a text; the reference's never learnt to, so it is
scored at the original's own content positions, which can only help it, and with whichever of its rates, weights (last
or averaged) and number of passes does best on the very texts that count. A token outside the vocabulary counts as
wrong on both sides.

How well gaps are filled is measured too, under that name: it is what the reference's own figure shows.

Shapes: B batch, L length.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.clocks import Clocks
from benchmarks.loops import fresh, start_ours
from benchmarks.reference import ReferenceLoop, ReferenceRecipe, train_reference
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import PairsRecipe, read_recipe
from embinv.data.tokenizer import TextTokenizer, content
from embinv.data.vocabulary import Vocabulary
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.strategies import STRATEGIES
from embinv.evaluation.gaps import MASKS, accuracy_at_masks, gap_name
from embinv.metrics.figures import rounded
from embinv.metrics.tokens import token_accuracy
from embinv.models.inverter_model import count_parameters
from embinv.models.settings import MDLMConfig, ModelSettings
from embinv.training.loop import Progress, RunState, run
from embinv.training.precision import resolve_precision
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class QualityCase:
    """One comparison; plain values, so that it travels to a process of its own.

    Attributes:
        data: a pairs data set.
        model: the config's `model` section.
        training: ours; batch size, device and seed hold for both. `minutes` is what each side gets.
        reference_rate: a learning rate of the reference.
        vocabulary: tokens at most, the commonest of the training texts; 0 takes all that occur.
        rows: held-out texts.
        steps: passes of a generation.
        threads: of the CPU.
    """

    data: Path
    model: ModelSettings
    training: TrainingSettings
    reference_rate: float
    vocabulary: int
    rows: int
    steps: int
    threads: int


@dataclass(frozen=True)
class Material:
    """What both sides learn from and are measured on.

    Attributes:
        training: with the model's token ids.
        test: held out, with the tokenizer's.
        vocabulary: what the models know.
        recipe: of the pairs.
        model: the architecture.
    """

    training: Pairs
    test: Pairs
    vocabulary: Vocabulary
    recipe: PairsRecipe
    model: MDLMConfig

    @property
    def ids(self) -> TokenIds:
        """The models' ids of what is not content."""
        eos_id, pad_id = self.vocabulary.ends(self.recipe.eos_id, self.recipe.pad_id)
        return TokenIds(self.model.mask_id, eos_id, pad_id)


def read_material(case: QualityCase) -> Material:
    """Reads the pairs and settles the vocabulary.

    Raises:
        ValueError: there are no such pairs, or fewer held-out texts than two.
    """
    recipe = read_recipe(case.data)
    training = read_pairs(case.data, "train")
    test = read_pairs(case.data, "test").sample(case.rows, 0)
    if len(test) < 2:
        raise ValueError(f"--data {case.data}: split=test has {len(test)} text; a figure needs at least 2")
    vocabulary = commonest(training.token_ids, recipe, case.vocabulary, TextTokenizer(recipe.tokenizer).unknown_id)
    model = case.model.resolve(vocabulary.size, recipe.encoder.dim, recipe.seq_len)
    return Material(training.renumbered(vocabulary), test, vocabulary, recipe, model)


def commonest(token_ids: np.ndarray, recipe: PairsRecipe, most: int, unknown_id: int) -> Vocabulary:
    """The `most` commonest tokens of token_ids [N, L], EOS and PAD among them; 0 takes all that occur."""
    counts = np.bincount(token_ids.reshape(-1), minlength=recipe.vocab_size)
    counts[[recipe.eos_id, recipe.pad_id]] = token_ids.size + 1
    order = np.argsort(-counts, kind="stable")[: most or None]
    return Vocabulary(np.sort(order[counts[order] > 0]), recipe.vocab_size, unknown_id)


def our_quality(case: QualityCase) -> dict[str, Any]:
    """Trains with the config's recipe and measures the average of the weights, as a checkpoint keeps it."""
    torch.set_num_threads(case.threads)
    material = read_material(case)
    settings = case.training
    engine, ema = start_ours(fresh(material.model, settings.seed), settings)
    state = RunState()
    losses, clocks = [], Clocks()
    few = material.training.take(np.arange(2))  # the loop's own validation, at its end, is not what counts here
    for event in run(engine, ema, material.training, few, material.ids, settings, state):
        if isinstance(event, Progress):
            losses.append(event.loss)
    cores = clocks.cores_used()
    return {
        **measured(ema.model, material, case, cut=True),
        "weights": "averaged",
        "passes": case.steps,
        "steps": state.step,
        "samples_per_second": round(state.step * settings.texts_per_step / state.seconds, 1),
        "cores_used": cores,
        "precision": resolve_precision(settings.precision, settings.device),
        "parameters": count_parameters(ema.model)["total"],
        "final_loss": round(losses[-1], 3),
    }


def reference_quality(case: QualityCase) -> dict[str, Any]:
    """Trains with the reference's recipe and measures it in each way; the best is its figure."""
    torch.set_num_threads(case.threads)
    material = read_material(case)
    settings = case.training
    assert settings.minutes is not None
    recipe = ReferenceRecipe(settings.texts_per_step, case.reference_rate, seed=settings.seed)
    loop = ReferenceLoop(material.model, (material.ids.eos_id, material.ids.pad_id), recipe, settings.device)
    step, seconds, clocks = 0, 0.0, Clocks()
    for made in train_reference(loop, material.training, settings.minutes):
        step, seconds = made
    cores = clocks.cores_used()
    tried = {
        (weights, passes): measured(model.eval(), material, replace(case, steps=passes), cut=False)
        for weights, model in (("last", loop.model), ("averaged", loop.average))
        for passes in sorted({1, case.steps, material.recipe.seq_len})
    }
    weights, passes = max(tried, key=lambda way: tried[way]["token_accuracy"])
    return {
        **tried[weights, passes],
        "weights": weights,
        "passes": passes,
        "tried": {f"{one}, {count} passes": figures["token_accuracy"] for (one, count), figures in tried.items()},
        "steps": step,
        "samples_per_second": round(step * settings.texts_per_step / seconds, 1),
        "cores_used": cores,
        "precision": loop.precision,
        "parameters": count_parameters(loop.model)["total"],
    }


OURS = "ours"
Side = tuple[Callable[[QualityCase], dict[str, Any]], QualityCase]


def sides_of(case: QualityCase, reference_rates: Sequence[float]) -> dict[str, Side]:
    """What is run for a comparison, by name: the reference at each of its rates, named by it, and ours."""
    references = {f"{rate:g}": (reference_quality, replace(case, reference_rate=rate)) for rate in reference_rates}
    return {**references, OURS: (our_quality, case)}


@torch.inference_mode()
def measured(denoiser: nn.Module, material: Material, case: QualityCase, cut: bool) -> dict[str, Any]:
    """Token accuracy from a full mask in `case.steps` passes, and accuracy at filling gaps.

    Args:
        denoiser: a `Denoiser` with weights, in evaluation mode.
        material: what it is measured on.
        case: how many passes.
        cut: a recovered text ends at its first EOS or PAD; otherwise all L tokens are held against the original.

    Returns:
        Figures with standard errors and n; `ceiling` is the share of tokens that the vocabulary holds.
    """
    device = next(denoiser.parameters()).device
    ends = (material.recipe.eos_id, material.recipe.pad_id)
    originals, recovered = [], []
    for start in range(0, len(material.test), EVALUATION_BATCH):
        rows = material.test.take(np.arange(start, min(start + EVALUATION_BATCH, len(material.test))))
        embedding = torch.from_numpy(rows.embeddings).float().to(device)
        request = DecodingRequest(embedding, material.recipe.seq_len, material.model.mask_id, case.steps)
        found = final_state(STRATEGIES["confidence"](denoiser, request)).tokens.cpu().numpy()
        written = material.vocabulary.original(found).tolist()
        originals += [content(row, ends) for row in rows.token_ids.tolist()]
        recovered += [content(row, ends) for row in written] if cut else written
    gaps = accuracy_at_masks(denoiser, material.test, ends, material.vocabulary, device)
    return {
        **rounded({"token_accuracy": token_accuracy(originals, recovered)}),
        "n": len(originals),
        "ceiling": round(float(np.isin(np.concatenate(originals), material.vocabulary.kept).mean()), 4),
        "filling_gaps": {f"{share:.0%}": rounded({"accuracy": gaps[gap_name(share)]}) for share in MASKS},
    }


def compare(case: QualityCase, sides: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The result of `sides_of`: ours over the best of the reference's rates, with the standard error of the ratio.

    It is null where the reference got nothing right at any rate.
    """
    ours = sides[OURS]
    accuracies = {name: figures["token_accuracy"] for name, figures in sides.items() if name != OURS}
    best = max(accuracies, key=lambda name: accuracies[name])
    reference, ratio, error = sides[best], None, None
    if reference["token_accuracy"] > 0:
        ratio = ours["token_accuracy"] / reference["token_accuracy"]
        spread = math.hypot(ours["token_accuracy_se"], ratio * reference["token_accuracy_se"])
        ratio, error = round(ratio, 3), round(spread / reference["token_accuracy"], 3)
    return {
        "quality_at_equal_time": ratio,
        "quality_at_equal_time_se": error,
        "token_accuracy": ours["token_accuracy"],
        "reference_token_accuracy": reference["token_accuracy"],
        "minutes": case.training.minutes,
        "batch": case.training.batch_size,
        "reference_rate": float(best),
        "reference_rates": accuracies,
        "ours": ours,
        "reference": reference,
    }


def middle(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The result with the middle ratio, of two the lower; null is above all others."""

    def ratio(result: dict[str, Any]) -> float:
        found = result["quality_at_equal_time"]
        return math.inf if found is None else found

    return sorted(results, key=ratio)[(len(results) - 1) // 2]
