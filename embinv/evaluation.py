"""What an inverter is worth, told honestly.

Every figure is generation from a full mask on held-out texts, over content tokens, with n and standard error, beside
three baselines: the zero embedding (what the text model knows by itself), shuffled embeddings (what any text of this
kind would score) and the nearest training neighbour (what retrieval alone gives). Accuracy under a partial mask is
measured during training and stands in the model card under its own name.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embinv.config import EvaluationSettings
from embinv.data.pairs import Pairs
from embinv.decoding.options import GREEDY
from embinv.encoders.base import Encoder
from embinv.generation import DEFINITIONS, Generation
from embinv.inverter import DiffusionInverter, Inversion
from embinv.metrics.figures import Figure
from embinv.metrics.perplexity import LanguageModel, TooFewTexts, perplexity
from embinv.metrics.positions import accuracy_by_length, accuracy_by_position
from embinv.metrics.text import cosine
from embinv.metrics.tokens import token_accuracy
from embinv.reliability import calibration_errors, predictions, reliability_curves
from embinv.scores import scores_table

log = logging.getLogger(__name__)

ROUNDING = 4


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        report: figures, plain values for JSON.
        scores: a row for each text, see `embinv.scores`.
    """

    report: dict[str, Any]
    scores: pa.Table


def evaluate(
    inverter: DiffusionInverter,
    test: Pairs,
    training: Pairs,
    encoder: Encoder | None,
    settings: EvaluationSettings,
    language_model: LanguageModel | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Measures an inverter on held-out pairs.

    Args:
        inverter: a loaded checkpoint.
        test: held-out pairs, at least two, in a random order.
        training: the pairs it was trained on, for the nearest neighbour.
        encoder: re-encodes recovered texts for the cosine; without one, the cosine is left out.
        settings: how to decode, and how many originals the report shows beside what was recovered.
        language_model: scores recovered texts for the perplexity; without one, the perplexity is left out.
        on_progress: gets a line now and then.
    """
    vectors = test.embeddings.astype(np.float32)
    originals = [inverter.tokenizer.content(ids) for ids in test.token_ids.tolist()]
    strategy, steps, seed, options = settings.strategy, settings.steps, settings.seed, settings.decoding

    began = time.perf_counter()
    inversions = inverter.invert(
        vectors,
        strategy=strategy,
        steps=steps,
        seed=seed,
        options=options,
        on_progress=lambda done: on_progress(f"inverting: {done} of {len(test)} texts"),
    )
    seconds = time.perf_counter() - began
    recovered = Generation(originals, test.texts, inversions)
    figures = recovered.figures()
    texts = [inversion.text for inversion in recovered.inversions]
    predicted = predictions(recovered)
    figures |= calibration_errors(predicted)
    if encoder is not None:
        on_progress("re-encoding what was recovered")
        figures["cosine"] = cosine(vectors, encoder.encode([text or " " for text in texts]))
    if language_model is not None:
        on_progress("the perplexity of what was recovered, and of the originals")
        figures |= perplexities(language_model, texts, test.texts)
    # What a shuffled vector gives is what its owner's vector gave.
    order = derangement(len(vectors), seed)
    shuffled = Generation(originals, test.texts, [recovered.inversions[i] for i in order])
    alike = 1 if strategy in GREEDY else len(test)  # texts that zero vectors give: one, or a sample for each
    nothing = inverter.invert_unchecked(
        np.zeros_like(vectors[:alike]), strategy=strategy, steps=steps, seed=seed, options=options, distinct=True
    )
    zero = Generation(originals, test.texts, nothing * (len(test) // alike))
    on_progress("baseline, nearest training neighbour")
    nearest = nearest_neighbour(vectors, training, originals, test.texts, inverter)
    report = {
        "n": len(test),
        "strategy": strategy,
        "steps": steps,
        "decoding": options.model_dump(),
        "seq_len": inverter.config.pairs.seq_len,
        **_flat(figures),
        "baselines": {
            "zero": _flat(zero.figures()),
            "shuffled": _flat(shuffled.figures()),
            "nearest": _flat(nearest.figures()),
        },
        "reliability": reliability_curves(predicted),
        "samples_per_second": {"invert": round(len(test) / seconds, 1)},
        "by_position": by_position(originals, recovered.inversions),
        "by_length": by_length(originals, recovered.inversions),
        "languages": _by_language(test.langs, originals, recovered.inversions),
        "examples": [
            {
                "original": test.texts[i],
                "recovered": texts[i],
                "confidence": recovered.inversions[i].confidence,
                "probability": recovered.inversions[i].probability,
            }
            for i in range(min(settings.examples, len(test)))
        ],
        "definitions": DEFINITIONS,
    }
    return Evaluation(report, scores_table(test, recovered.inversions, figures))


def perplexities(
    language_model: LanguageModel, recovered: Sequence[str], originals: Sequence[str]
) -> dict[str, Figure]:
    """Of the recovered texts and of the originals; absent where fewer than two texts have two tokens."""
    found = {}
    for name, texts in (("perplexity", recovered), ("perplexity_of_originals", originals)):
        try:
            found[name] = perplexity(texts, language_model).figure
        except TooFewTexts as error:
            log.warning("%s is left out: %s", name, error)
    return found


def derangement(n: int, seed: int) -> np.ndarray:
    """A random cyclic shift of a random order: every row gets another row's vector, [n] int64."""
    order = np.random.default_rng(seed).permutation(n)
    target = np.empty(n, dtype=np.int64)
    target[order] = np.roll(order, 1)
    return target


def nearest_neighbour(
    vectors: np.ndarray,
    training: Pairs,
    originals: list[list[int]],
    texts: list[str],
    inverter: DiffusionInverter,
    block: int = 65_536,
) -> Generation:
    """For each vector [N, D] the training text of highest cosine, as if it had been recovered."""
    queries = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best, where = np.full(len(queries), -np.inf, dtype=np.float32), np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(training), block):
        keys = training.embeddings[start : start + block].astype(np.float32)
        keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        similarity = queries @ keys.T  # [N, block]
        place = similarity.argmax(axis=1)
        value = similarity[np.arange(len(queries)), place]
        better = value > best
        best[better], where[better] = value[better], place[better] + start
    ids = [inverter.tokenizer.content(row) for row in training.token_ids[where].tolist()]
    found = [
        Inversion(training.texts[row], content, [], float(score))
        for row, content, score in zip(where.tolist(), ids, best.tolist(), strict=True)
    ]
    return Generation(originals, texts, found)


def by_position(originals: list[list[int]], inversions: list[Inversion]) -> list[dict[str, Any]]:
    """Token accuracy at each position, from 1, that at least two texts reach."""
    found = accuracy_by_position(originals, [inversion.token_ids for inversion in inversions])
    return [
        {"position": position, "n": figure.n, **_flat({"token_accuracy": figure})}
        for position, figure in enumerate(found, start=1)
        if figure is not None
    ]


def by_length(originals: list[list[int]], inversions: list[Inversion]) -> list[dict[str, Any]]:
    """Token accuracy by quarters of the originals' lengths; those of at least two texts."""
    found = accuracy_by_length(originals, [inversion.token_ids for inversion in inversions])
    return [
        {"shortest": each.shortest, "longest": each.longest, "n": each.n, **_flat({"token_accuracy": each.accuracy})}
        for each in found
        if each.accuracy is not None
    ]


def _by_language(langs: Sequence[str], originals: list[list[int]], inversions: list[Inversion]) -> dict[str, Any]:
    """Token accuracy of each language with at least two texts."""
    result = {}
    for lang in sorted(set(langs)):
        rows = [i for i, other in enumerate(langs) if other == lang]
        if len(rows) >= 2:
            figure = token_accuracy([originals[i] for i in rows], [inversions[i].token_ids for i in rows])
            result[lang] = {"n": figure.n, **_flat({"token_accuracy": figure})}
    return result


def _flat(figures: dict[str, Figure]) -> dict[str, float]:
    """name and name_se of each figure, rounded."""
    flat = {}
    for name, figure in figures.items():
        flat[name] = round(figure.value, ROUNDING)
        flat[f"{name}_se"] = round(figure.standard_error, ROUNDING)
    return flat
