"""Is one system better than another, on the same texts? The paired bootstrap (Efron and Tibshirani 1993; Koehn 2004).

Shapes: N texts, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AT_ONCE = 2**24  # counts held at a time


@dataclass(frozen=True)
class Difference:
    """How much a figure differs between two systems.

    Attributes:
        first: the figure of the one.
        second: the figure of the other.
        value: second - first.
        low: lower end of the 95% interval of the difference.
        high: its upper end.
        p: two-sided: twice the share of resamples in which the difference has the other sign or none, each counted
            with one more than there are (Davison and Hinkley 1997, section 4.2), so that it is never 0; 1 at most.
        n: texts.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    p: float
    n: int


def paired_bootstrap(
    first: tuple[Sequence[float], Sequence[float]],
    second: tuple[Sequence[float], Sequence[float]],
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Resamples texts, the same ones for both, and takes the percentiles of the difference.

    Args:
        first: parts [N] and wholes [N] of each text; the figure is the sum of parts over the sum of wholes.
        second: those of the other system, in the same order of texts.
        resamples: R.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two texts, not the same number everywhere, or a part or whole that is not finite.
    """
    columns = np.asarray([*first, *second], dtype=np.float64).T  # [N, 4]
    n = len(columns)
    if n < 2:
        raise ValueError(f"a comparison needs at least 2 texts, got {n}")
    if not np.isfinite(columns).all() or (columns[:, [1, 3]].sum(axis=0) <= 0).any():
        raise ValueError("a comparison needs parts and wholes that are finite, and something to count")
    generator, share = np.random.default_rng(seed), np.full(n, 1.0 / n)
    found = []
    for start in range(0, resamples, max(1, AT_ONCE // n)):
        size = min(max(1, AT_ONCE // n), resamples - start)
        found.append(_difference(generator.multinomial(n, share, size=size) @ columns))  # [R, N] @ [N, 4]
    differences = np.concatenate(found)
    whole = columns.sum(axis=0)
    low, high = np.quantile(differences, (0.025, 0.975))
    either = (min((differences <= 0).sum(), (differences >= 0).sum()) + 1) / (resamples + 1)
    return Difference(
        float(whole[0] / whole[1]),
        float(whole[2] / whole[3]),
        float(_difference(whole)),
        float(low),
        float(high),
        float(min(1.0, 2 * either)),
        n,
    )


def _difference(sums: np.ndarray) -> np.ndarray:
    """Of sums [..., 4] of parts and wholes of both."""
    return sums[..., 2] / sums[..., 3] - sums[..., 0] / sums[..., 1]
