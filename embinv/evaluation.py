"""What an inverter is worth, told honestly.

Every figure is generation from a full mask on held-out texts, over content tokens, with n and standard error, beside
three baselines: the zero embedding (what the text model knows by itself), shuffled embeddings (what any text of this
kind would score) and the nearest training neighbour (what retrieval alone gives). Accuracy under a partial mask is
measured during training and stands in the model card under its own name.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from embinv.calibration import NEARLY_RIGHT, Calibration, fit
from embinv.data.pairs import Pairs
from embinv.decoding.options import GREEDY, DecodingOptions
from embinv.encoders.base import Encoder
from embinv.inverter import DiffusionInverter, Inversion
from embinv.metrics.calibration import expected_calibration_error, reliability, rightness, share_right
from embinv.metrics.characters import character_error_rate, words
from embinv.metrics.figures import Figure
from embinv.metrics.lengths import length_bias, length_error
from embinv.metrics.positions import accuracy_by_length, accuracy_by_position
from embinv.metrics.rouge import rouge_1, rouge_l
from embinv.metrics.text import cosine, sentence_bleu
from embinv.metrics.tokens import Texts, exact_match, token_accuracy, token_f1
from embinv.scores import scores_table

DEFINITIONS = {
    "token_accuracy": "share of the original's content tokens that stand at the same place in the recovered text",
    "exact_match": "share of texts recovered to the last token",
    "token_f1": "F1 between the bags of tokens of original and recovered text, mean over texts",
    "rouge_1": "mean F-measure between the bags of words of original and recovered text (ROUGE-1); in scripts without "
    "spaces each character is a word",
    "rouge_l": "mean F-measure of their longest common subsequence of words (ROUGE-L)",
    "character_error_rate": "characters to insert, delete or substitute to mend all recovered texts, over the "
    "characters of the originals",
    "length_error": "mean absolute difference of lengths, in content tokens",
    "length_bias": "mean difference of lengths, recovered less original, in content tokens",
    "bleu": "mean sentence BLEU (sacreBLEU, 13a, exponential smoothing, effective order), 0 to 100",
    "calibration_error": "expected calibration error of the tokens' probabilities: mean distance between what was "
    "predicted and what came true, over ten bins (Guo et al. 2017)",
    "text_calibration_error": "the same of the probability that at least 90% of a text is right",
    "cosine": "mean cosine between the vector that was inverted and the recovered text's own, re-encoded",
}
"""What each figure means, word for word as reports give it."""

TOKEN_METRICS: dict[str, Callable[[Texts, Texts], Figure]] = {
    "token_accuracy": token_accuracy,
    "exact_match": exact_match,
    "token_f1": token_f1,
    "length_error": length_error,
    "length_bias": length_bias,
}
TEXT_METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], Figure]] = {
    "bleu": sentence_bleu,
    "rouge_1": rouge_1,
    "rouge_l": rouge_l,
    "character_error_rate": character_error_rate,
}
ROUNDING = 4


@dataclass(frozen=True)
class Generation:
    """Originals' content tokens and what was recovered for each."""

    originals: list[list[int]]
    texts: list[str]
    inversions: list[Inversion]

    def figures(self) -> dict[str, Figure]:
        """Figures that need no encoder; one that these texts do not have is absent."""
        ids, said = [inversion.token_ids for inversion in self.inversions], [each.text for each in self.inversions]
        figures = {name: metric(self.originals, ids) for name, metric in TOKEN_METRICS.items()}
        return figures | {name: metric(self.texts, said) for name, metric in TEXT_METRICS.items() if name in self.named}

    @cached_property
    def named(self) -> set[str]:
        """The text metrics that the originals have: those of words only if each of them has a word."""
        return set(TEXT_METRICS) - (set() if all(map(words, self.texts)) else {"rouge_1", "rouge_l"})


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
    strategy: str,
    steps: int,
    options: DecodingOptions,
    examples: int,
    seed: int,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Measures an inverter on held-out pairs.

    Args:
        inverter: a loaded checkpoint.
        test: held-out pairs, at least two, in a random order.
        training: the pairs it was trained on, for the nearest neighbour.
        encoder: re-encodes recovered texts for the cosine; without one, the cosine is left out.
        strategy: a decoder's name.
        steps: denoising passes.
        options: how the decoder does what it does.
        examples: how many originals the report shows beside what was recovered.
        seed: of decoders that sample and of the shuffle.
        on_progress: gets a line now and then.
    """
    vectors = test.embeddings.astype(np.float32)
    originals = [inverter.tokenizer.content(ids) for ids in test.token_ids.tolist()]

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
    figures |= calibration_errors(recovered)
    if encoder is not None:
        on_progress("re-encoding what was recovered")
        figures["cosine"] = cosine(vectors, encoder.encode([text or " " for text in texts]))
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
        "reliability": reliability_curves(recovered),
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
            for i in range(min(examples, len(test)))
        ],
        "definitions": DEFINITIONS,
    }
    return Evaluation(report, scores_table(test, recovered.inversions, figures))


def calibrate(
    inverter: DiffusionInverter,
    validation: Pairs,
    strategy: str,
    steps: int,
    options: DecodingOptions,
    seed: int,
    on_progress: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Recovers validation texts and fits what confidence is worth on them.

    Args:
        inverter: a loaded checkpoint.
        validation: texts that it did not learn from and that it is not measured on.
        strategy: a decoder's name; with `steps` and `options`, the way that is calibrated.
        steps: denoising passes.
        options: the decoder's.
        seed: of decoders that sample.
        on_progress: gets a line now and then.

    Raises:
        ValueError: not one token was recovered.
    """
    inversions = inverter.invert(
        validation.embeddings.astype(np.float32),
        strategy=strategy,
        steps=steps,
        seed=seed,
        options=options,
        on_progress=lambda done: on_progress(f"calibrating: {done} of {len(validation)} texts"),
    )
    return fit(
        strategy,
        steps,
        options,
        [inverter.tokenizer.content(ids) for ids in validation.token_ids.tolist()],
        [inversion.token_ids for inversion in inversions],
        [inversion.token_confidence for inversion in inversions],
        [inversion.confidence for inversion in inversions],
    )


@dataclass(frozen=True)
class _Predictions:
    """Probabilities [N] that were given, what came true of them [N], and the text [N] each belongs to."""

    probabilities: np.ndarray
    outcomes: np.ndarray
    texts: np.ndarray


def _predictions(generation: Generation) -> dict[str, _Predictions]:
    """Those of tokens and of texts; nothing where the way of decoding was not calibrated."""
    tokens, outcomes, owners, of_texts, nearly = [], [], [], [], []
    for row, (original, inversion) in enumerate(zip(generation.originals, generation.inversions, strict=True)):
        if inversion.token_probability is None or inversion.probability is None:
            return {}
        tokens += inversion.token_probability
        outcomes += rightness(original, inversion.token_ids)
        owners += [row] * len(inversion.token_ids)
        of_texts.append(inversion.probability)
        nearly.append(share_right(original, inversion.token_ids) >= NEARLY_RIGHT)
    found = {"text": _Predictions(np.asarray(of_texts), np.asarray(nearly, dtype=float), np.arange(len(nearly)))}
    if len(set(owners)) > 1:
        found["token"] = _Predictions(np.asarray(tokens), np.asarray(outcomes, dtype=float), np.asarray(owners))
    return found


def calibration_errors(generation: Generation) -> dict[str, Figure]:
    """The errors of the probabilities that were given, by what a report calls them."""
    names = {"token": "calibration_error", "text": "text_calibration_error"}
    return {
        names[kind]: expected_calibration_error(each.probabilities, each.outcomes, each.texts)
        for kind, each in _predictions(generation).items()
    }


def reliability_curves(generation: Generation) -> dict[str, list[dict[str, float]]]:
    """The bins behind the errors: n, predicted and observed."""
    return {
        kind: [asdict(each) for each in reliability(found.probabilities, found.outcomes)]
        for kind, found in _predictions(generation).items()
    }


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
