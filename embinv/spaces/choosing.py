"""Which linear map to trust with so many known pairs: none, Procrustes or ridge, chosen by cross-validation.

Each candidate is fitted on all folds but one and scored on that one by the cosine between mapped and true vectors, for
direction is what an inverter reads. The best mean over all pairs wins, and is fitted again on all of them. The scores
are of the choice, not of what comes after it: they lean towards the winner, so that a leakage figure needs other pairs
than these. What this does not do: learn maps that are not linear.

Shapes: k pairs, D dimensions of the source space, E of the target space.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from embinv.metrics.figures import Figure, mean_figure
from embinv.spaces.linear import LinearMap, procrustes, ridge, unchanged

Fit = Callable[[np.ndarray, np.ndarray], LinearMap]

FEWEST = 10
"""Pairs below which nothing is chosen: two folds of five are the least that say anything."""

FOLDS = 5  # at most
FOLD_ROWS = 5  # at least
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
CANDIDATES: Mapping[str, Fit] = MappingProxyType(
    {
        "unchanged": unchanged,
        "procrustes": procrustes,
        "procrustes centred": partial(procrustes, centred=True, scaled=True),
        **{f"ridge {strength:g}": partial(ridge, strength=strength) for strength in STRENGTHS},
    }
)
"""How each map is fitted; of equal scores the first wins."""


@dataclass(frozen=True)
class Chosen:
    """The winner of a cross-validation.

    Attributes:
        map: fitted on all pairs.
        name: of its candidate.
        scores: of each candidate, the mean cosine over pairs that its fit had not seen.
        folds: of the cross-validation.
    """

    map: LinearMap
    name: str
    scores: Mapping[str, Figure]
    folds: int


def choose_map(
    source: np.ndarray, target: np.ndarray, seed: int = 0, candidates: Mapping[str, Fit] = CANDIDATES
) -> Chosen:
    """Chooses among candidates, and fits the winner on all pairs.

    Args:
        source: [k, D] vectors in the one space, none of them zero.
        target: [k, E] vectors of the same texts in the other, none of them zero.
        seed: says which pairs lie in a fold.
        candidates: by name.

    Raises:
        ValueError: there are fewer than FEWEST pairs, a vector is zero, or they cannot be fitted (see `linear`).
    """
    pairs = len(source)
    if pairs < FEWEST or len(target) != pairs:
        raise ValueError(
            f"a map is chosen on {pairs} source and {len(target)} target vectors; give both of the same texts, at "
            f"least {FEWEST}"
        )
    for vectors, name in ((source, "source"), (target, "target")):
        if not vectors.any(axis=1).all():
            raise ValueError(f"{name} row {int(np.argmin(vectors.any(axis=1)))} is a zero vector; leave it out")
    folds = np.array_split(np.random.default_rng(seed).permutation(pairs), min(FOLDS, pairs // FOLD_ROWS))
    cosines = {name: np.empty(pairs) for name in candidates}  # [k] each
    for fold in folds:
        seen = np.setdiff1d(np.arange(pairs), fold)
        for name, fit in candidates.items():
            cosines[name][fold] = row_cosines(fit(source[seen], target[seen])(source[fold]), target[fold])
    scores = {name: mean_figure(found.tolist()) for name, found in cosines.items()}
    name = max(scores, key=lambda each: scores[each].value)
    return Chosen(candidates[name](source, target), name, scores, len(folds))


def row_cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each row of `left` [N, E] with that of `right` [N, E], as [N] float64; 0 where a row is zero."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.divide((left * right).sum(axis=1), norms, out=np.zeros(len(left)), where=norms > 0)
