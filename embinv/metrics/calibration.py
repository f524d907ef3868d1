"""Probabilities that mean what they say: a monotone map from scores, and how far off it is.

Shapes: N scored things (tokens or texts), K bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embinv.metrics.figures import Figure

RESAMPLES = 200


def fit_isotonic(scores: np.ndarray, outcomes: np.ndarray) -> tuple[list[float], list[float]]:
    """The increasing map of scores to probabilities nearest to the outcomes (Zadrozny and Elkan 2002).

    Args:
        scores: [N] float.
        outcomes: [N] of 0 and 1.

    Returns:
        Knots: ascending scores, and the probability at each; between two of them it is linear, beyond them constant.

    Raises:
        ValueError: no score, or one that is not finite.
    """
    from sklearn.isotonic import IsotonicRegression

    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError("a calibration needs scores, all of them finite")
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, outcomes)
    return fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()


@dataclass(frozen=True)
class Bin:
    """Things of about the same probability.

    Attributes:
        n: how many.
        predicted: their mean probability.
        observed: the share of them that came true.
    """

    n: int
    predicted: float
    observed: float


def reliability(probabilities: np.ndarray, outcomes: np.ndarray, bins: int = 10) -> list[Bin]:
    """Bins of equal width over [0, 1], empty ones left out: the points of a reliability curve (DeGroot, Fienberg 1983).

    Args:
        probabilities: [N] in [0, 1].
        outcomes: [N] of 0 and 1.
        bins: K.
    """
    place = _places(probabilities, bins)
    return [
        Bin(int(here.sum()), float(probabilities[here].mean()), float(outcomes[here].mean()))
        for here in (place == number for number in range(bins))
        if here.any()
    ]


def expected_calibration_error(
    probabilities: np.ndarray, outcomes: np.ndarray, texts: np.ndarray, bins: int = 10, seed: int = 0
) -> Figure:
    """Mean distance between predicted and observed over the bins, each weighted by its size (Guo et al. 2017, eq. 3).

    Its standard error is over texts, by resampling them, since tokens of one text are not independent.

    Args:
        probabilities: [N] in [0, 1].
        outcomes: [N] of 0 and 1.
        texts: [N] int, a number of the text that each belongs to; texts without anything do not count.
        bins: K.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two texts.
    """
    numbers, owner = np.unique(texts, return_inverse=True)
    count = len(numbers)
    if count < 2:
        raise ValueError(f"a calibration error needs at least 2 texts, got {count}")
    cell = owner * bins + _places(probabilities, bins)
    gaps = np.bincount(cell, weights=probabilities - outcomes, minlength=count * bins).reshape(count, bins)
    sizes = np.bincount(owner, minlength=count)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=RESAMPLES)  # [R, texts]
    resampled = np.abs(draws @ gaps).sum(axis=1) / (draws @ sizes)
    return Figure(float(np.abs(gaps.sum(axis=0)).sum() / len(texts)), float(resampled.std(ddof=1)), count)


def _places(probabilities: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def rightness(original: Sequence[int], recovered: Sequence[int]) -> list[bool]:
    """Whether each recovered token stands where the original has it."""
    return [place < len(original) and original[place] == token for place, token in enumerate(recovered)]


def share_right(original: Sequence[int], recovered: Sequence[int]) -> float:
    """Share of places at which both agree, of the longer one's; 1 only for equal texts."""
    return sum(rightness(original, recovered)) / max(len(original), len(recovered), 1)
