"""What was recovered for known texts, and the figures of it: their names, their meaning and how they are computed.

Nothing is decoded here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from embinv.inversion import Inversion
from embinv.metrics.characters import character_error_rate, words
from embinv.metrics.figures import Figure, rounded
from embinv.metrics.lengths import length_bias, length_error
from embinv.metrics.positions import accuracy_by_length, accuracy_by_position
from embinv.metrics.rouge import rouge_1, rouge_l
from embinv.metrics.text import sentence_bleu
from embinv.metrics.tokens import Texts, exact_match, token_accuracy, token_f1

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
    "perplexity": "of the recovered texts under the language model that the settings name, over all their tokens",
    "perplexity_of_originals": "the same of the originals",
    "calibration_error": "expected calibration error of the tokens' probabilities: mean distance between what was "
    "predicted and what came true, over ten bins (Guo et al. 2017)",
    "text_calibration_error": "the same of the probability that at least 90% of a text is right",
    "entity_recall": "share of the names, numbers and dates that the originals are labelled with which stand in the "
    "recovered text, on word boundaries, whatever their case and spacing",
    "accuracy_at_10%_mask": "content tokens right in one pass where 10% of them are hidden and the others are in "
    "sight: how well gaps are filled, and no inversion",
    "accuracy_at_50%_mask": "the same with half of them hidden",
    "accuracy_at_100%_mask": "the same with all of them hidden and only the length in sight",
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


def by_position(originals: list[list[int]], inversions: list[Inversion]) -> list[dict[str, Any]]:
    """Token accuracy at each position, from 1, that at least two texts reach."""
    found = accuracy_by_position(originals, [inversion.token_ids for inversion in inversions])
    return [
        {"position": position, "n": figure.n, **rounded({"token_accuracy": figure})}
        for position, figure in enumerate(found, start=1)
        if figure is not None
    ]


def by_length(originals: list[list[int]], inversions: list[Inversion]) -> list[dict[str, Any]]:
    """Token accuracy by quarters of the originals' lengths; those of at least two texts."""
    found = accuracy_by_length(originals, [inversion.token_ids for inversion in inversions])
    return [
        {"shortest": each.shortest, "longest": each.longest, "n": each.n, **rounded({"token_accuracy": each.accuracy})}
        for each in found
        if each.accuracy is not None
    ]


def accuracy_by_language(
    langs: Sequence[str], originals: Sequence[list[int]], inversions: Sequence[Inversion]
) -> dict[str, Any]:
    """Token accuracy of each language with at least two texts."""
    result = {}
    for lang in sorted(set(langs)):
        rows = [i for i, other in enumerate(langs) if other == lang]
        if len(rows) >= 2:
            figure = token_accuracy([originals[i] for i in rows], [inversions[i].token_ids for i in rows])
            result[lang] = {"n": figure.n, **rounded({"token_accuracy": figure})}
    return result
