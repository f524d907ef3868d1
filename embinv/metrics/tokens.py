"""Metrics over token ids: how much of a text was recovered, counted on its content tokens only.

Content tokens are those before EOS. Every figure comes with n, the number of texts, and a standard error over
texts. A metric that cannot be computed raises.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

Texts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Figure:
    """A measured value with its standard error over n texts."""

    value: float
    standard_error: float
    n: int


def mean_figure(values: Sequence[float]) -> Figure:
    """Mean and standard error of one value per text.

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 texts, got {n}")
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    return Figure(mean, sqrt(variance / n), n)


def token_accuracy(originals: Texts, recovered: Texts) -> Figure:
    """Share of the originals' content tokens that stand at the same place in the recovered text.

    A ratio over all tokens of all texts; its standard error is that of a ratio estimator over texts (Cochran 1977,
    eq. 2.46), since tokens of one text are not independent.

    Args:
        originals: true content ids of n texts.
        recovered: the recovered texts' content ids.

    Raises:
        ValueError: fewer than two texts, different counts, or an original without tokens.
    """
    correct = [sum(a == b for a, b in zip(x, y, strict=False)) for x, y in zip(originals, recovered, strict=True)]
    lengths = [len(x) for x in originals]
    n = len(lengths)
    if n < 2 or min(lengths) == 0:
        raise ValueError("token accuracy needs at least 2 texts, each with a content token")
    ratio = sum(correct) / sum(lengths)
    residual = sum((c - ratio * length) ** 2 for c, length in zip(correct, lengths, strict=True)) / (n - 1)
    return Figure(ratio, sqrt(residual / n) / (sum(lengths) / n), n)


def exact_match(originals: Texts, recovered: Texts) -> Figure:
    """Share of texts recovered to the last token, their length included."""
    return mean_figure([float(list(x) == list(y)) for x, y in zip(originals, recovered, strict=True)])


def token_f1(originals: Texts, recovered: Texts) -> Figure:
    """Mean F1 between the texts' bags of tokens: what was recovered wherever it stands."""
    return mean_figure([_f1(x, y) for x, y in zip(originals, recovered, strict=True)])


def _f1(original: Sequence[int], recovered: Sequence[int]) -> float:
    shared = (Counter(original) & Counter(recovered)).total()
    return 2 * shared / (len(original) + len(recovered))
