"""How many vectors give their text away: by what the checkpoint predicts, and where originals are there, by comparison.

A vector gives its text away if at least 90% of the text is right, place by place and of the longer of the two: what
`embinv.calibration` fits probabilities to. The number expected is the sum of these probabilities. Its standard error is
that of a sum of independent events that happen with them; how far off the probabilities themselves are shows only in
a comparison. Pure functions, over arrays that a caller gathers.

Shapes: n rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from embinv.calibration import NEARLY_RIGHT
from embinv.metrics.calibration import share_right
from embinv.metrics.characters import words
from embinv.metrics.figures import Figure, mean_figure
from embinv.metrics.tokens import bag_f1

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]
THRESHOLDS = (*(step / 20 for step in range(1, 20)), 0.99)
LIKELY, NEARLY_SURE = 0.5, 0.9
DOUBT = 2.0
"""Standard errors up to which what was found agrees with what was expected."""


@dataclass(frozen=True)
class Comparison:
    """What n recovered texts have of their originals; NaN for a row without an original.

    Attributes:
        whole: [n] 1 where every token is right and the length too.
        nearly: [n] 1 where at least 90% of the text is right.
        f1: [n] F1 between the bags of tokens.
    """

    whole: np.ndarray
    nearly: np.ndarray
    f1: np.ndarray


def by_words() -> Tokenize:
    """A tokenizer for texts whose own is not at hand: words, whatever their case, numbered as they come."""
    numbers: dict[str, int] = {}
    return lambda texts: [[numbers.setdefault(word, len(numbers)) for word in words(text)] for text in texts]


def compare(originals: Sequence[str | None], recovered: Sequence[str], tokenize: Tokenize) -> Comparison:
    """Compares recovered texts with their originals, token by token.

    Args:
        originals: n true texts; a row without one, or one without tokens, is not compared.
        recovered: n recovered texts.
        tokenize: texts to token ids, without special tokens.
    """
    known = [place for place, text in enumerate(originals) if text]
    true = tokenize([str(originals[place]) for place in known])
    said = tokenize([recovered[place] for place in known])
    whole, nearly, f1 = (np.full(len(recovered), np.nan) for _ in range(3))
    for place, own, other in zip(known, true, said, strict=True):
        if len(own):
            whole[place] = list(own) == list(other)
            nearly[place] = share_right(own, other) >= NEARLY_RIGHT
            f1[place] = bag_f1(own, other)
    return Comparison(whole, nearly, f1)


def by_probability(probabilities: np.ndarray) -> dict[str, Any] | None:
    """How many vectors are expected to give their text away; None if no row has a probability.

    Args:
        probabilities: [n], NaN where none was calibrated.

    Returns:
        n (rows with a probability), expected, expected_se, share, share_se, likely (rows at 0.5 or more), nearly_sure
        (at 0.9 or more), and curve: the share of rows at each threshold or above.
    """
    known = probabilities[~np.isnan(probabilities)]
    stored = known.astype(np.float32)  # as files have them: a 0.9 there is not below 0.9
    if not len(known):
        return None
    expected, error = float(known.sum()), sqrt(float((known * (1.0 - known)).sum()))
    return {
        "n": len(known),
        "expected": expected,
        "expected_se": error,
        "share": expected / len(known),
        "share_se": error / len(known),
        "likely": int((stored >= np.float32(LIKELY)).sum()),
        "nearly_sure": int((stored >= np.float32(NEARLY_SURE)).sum()),
        "curve": [{"threshold": each, "share": float((stored >= np.float32(each)).mean())} for each in THRESHOLDS],
    }


def by_comparison(comparison: Comparison) -> dict[str, Any] | None:
    """The figures of a comparison, each with its standard error over texts; None where fewer than two were compared."""
    known = ~np.isnan(comparison.nearly)
    if known.sum() < 2:
        return None
    found: dict[str, Any] = {"n": int(known.sum())}
    names = {"whole_text": comparison.whole, "nearly_right": comparison.nearly, "token_f1": comparison.f1}
    for name, values in names.items():
        found |= figure_entry(name, mean_figure(values[known].tolist()))
    found["nearly_right_count"] = int(comparison.nearly[known].sum())
    return found


def agreement(probabilities: np.ndarray, nearly: np.ndarray) -> dict[str, Any] | None:
    """Whether as many texts were nearly right as the probabilities said, over rows that have both; None without any.

    Args:
        probabilities: [n], NaN where none was calibrated.
        nearly: [n] of 0 and 1, NaN where nothing was compared.

    Returns:
        n, expected, expected_se, found, deviation (in standard errors of the expected, None where that is 0) and
        agrees: whether it is at most 2.
    """
    both = ~np.isnan(probabilities) & ~np.isnan(nearly)
    expected = by_probability(np.where(both, probabilities, np.nan))
    if expected is None:
        return None
    count = int(nearly[both].sum())
    gap, error = count - expected["expected"], expected["expected_se"]
    return {
        "n": expected["n"],
        "expected": expected["expected"],
        "expected_se": error,
        "found": count,
        "deviation": gap / error if error else None,
        "agrees": abs(gap) <= DOUBT * error + 1e-9,
    }


def given_away(probabilities: np.ndarray, nearly: np.ndarray) -> np.ndarray:
    """[n] how surely each row's text is given away: 0 or 1 where it was compared, else its probability, else NaN."""
    return np.where(np.isnan(nearly), probabilities, nearly)


def figure_entry(name: str, figure: Figure) -> dict[str, float]:
    """A figure as reports hold it, under its name and name_se."""
    return {name: figure.value, f"{name}_se": figure.standard_error}
