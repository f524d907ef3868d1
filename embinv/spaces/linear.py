"""Linear maps from one embedding space to another, fitted on vectors of the same texts in both.

Orthogonal Procrustes (Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966; with a scale:
Schönemann and Carroll, 1970) and ridge regression (Hoerl and Kennard, 1970). That few pairs suffice to invert another
encoder's vectors is the point of ALGEN (Chen, Xu and Bjerva, 2025).

Both fits are closed forms in float64. What this does not do: choose between them (see `choosing`), or normalise rows.

Shapes: k pairs, N vectors, D dimensions of the source space, E of the target space.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LinearMap:
    """v -> (v - source_mean) @ weight + target_mean.

    Attributes:
        weight: [D, E] float64.
        source_mean: [D] float64, zero where the fit was not centred.
        target_mean: [E] float64, zero where the fit was not centred.
    """

    weight: np.ndarray
    source_mean: np.ndarray
    target_mean: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Maps [N, D] vectors to [N, E] float32.

        Raises:
            ValueError: the vectors have another dimension than the map.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.source_mean):
            raise ValueError(
                f"the map takes vectors [N, {len(self.source_mean)}], these are {list(vectors.shape)}; "
                "give vectors of the space that it was fitted on"
            )
        mapped = (vectors.astype(np.float64) - self.source_mean) @ self.weight + self.target_mean  # [N, E]
        return mapped.astype(np.float32)


def procrustes(source: np.ndarray, target: np.ndarray, centred: bool = False, scaled: bool = False) -> LinearMap:
    """The rotation (or reflection) that brings source vectors nearest to target vectors.

    W = U V^T of the thin singular value decomposition X^T Y = U S V^T. Where D != E this is what zero padding of the
    smaller space gives, cut back to [D, E]: W has orthonormal columns (D > E) or rows (D < E). For D <= E it is the
    least-squares optimum among such matrices; for D > E it maximises the inner products with the targets, since the
    length of X W is no longer fixed. Where X^T Y lacks rank, as with k < D and k < E, the directions that no pair has
    seen are joined to each other as the decomposition happens to give them: without meaning, the same at each call.

    Args:
        source: [k, D] vectors in the one space.
        target: [k, E] vectors of the same texts in the other.
        centred: subtract both means first, and add the target's after.
        scaled: times the one factor that fits best, so that spaces of other lengths are matched; otherwise W keeps
            lengths where D <= E.

    Raises:
        ValueError: the arrays do not fit each other, hold NaN or infinite numbers, or say nothing (all rows zero, or
            all alike where they are centred).
    """
    x, y, source_mean, target_mean = _prepared(source, target, centred)
    left, singular, right = np.linalg.svd(x.T @ y, full_matrices=False)  # [D, m], [m], [m, E] with m = min(D, E)
    weight = left @ right  # [D, E]
    if scaled:
        weight *= singular.sum() / np.square(x @ weight).sum()
    return LinearMap(weight, source_mean, target_mean)


def unchanged(source: np.ndarray, target: np.ndarray) -> LinearMap:
    """The vectors as they are, cut or filled up with zeros from D to E: right for rounded vectors and for cut ones.

    Nothing is fitted; see `procrustes` for the arguments and what is refused.
    """
    _prepared(source, target, centred=False)
    dimension, target_dimension = source.shape[1], target.shape[1]
    return LinearMap(np.eye(dimension, target_dimension), np.zeros(dimension), np.zeros(target_dimension))


def ridge(source: np.ndarray, target: np.ndarray, strength: float) -> LinearMap:
    """The linear map of least squares, with a penalty on its size; centred.

    W = (X^T X + p I)^-1 X^T Y, or the same as X^T (X X^T + p I)^-1 Y where k < D, with p = strength * k * (mean
    variance of a source dimension). So a strength means the same whatever the length of the vectors and their number.

    Args:
        source: [k, D] vectors in the one space.
        target: [k, E] vectors of the same texts in the other.
        strength: above 0; 1 penalises an average direction as much as the pairs speak for it.

    Raises:
        ValueError: the strength is not above 0, or see `procrustes`.
    """
    if not 0 < strength < np.inf:
        raise ValueError(f"strength of ridge is {strength}; give a number above 0")
    x, y, source_mean, target_mean = _prepared(source, target, centred=True)
    pairs, dimension = x.shape
    penalty = strength * np.square(x).sum() / dimension  # k times the mean variance
    if pairs < dimension:
        weight = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(pairs), y)  # [D, k] [k, E]
    else:
        weight = np.linalg.solve(x.T @ x + penalty * np.eye(dimension), x.T @ y)  # [D, E]
    return LinearMap(weight, source_mean, target_mean)


def _prepared(
    source: np.ndarray, target: np.ndarray, centred: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Both in float64, minus their means if asked, and the means (else zeros).

    Raises:
        ValueError: see `procrustes`.
    """
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target) or not len(source):
        raise ValueError(
            f"a map is fitted on vectors [k, D] and [k, E] of the same texts, these are {list(source.shape)} and "
            f"{list(target.shape)}; give one row in each for each text"
        )
    x, y = source.astype(np.float64), target.astype(np.float64)
    for vectors, name in ((x, "source"), (y, "target")):
        if not np.isfinite(vectors).all():
            raise ValueError(f"{name} vectors hold NaN or infinite numbers; leave those rows out on both sides")
    source_mean = x.mean(0) if centred else np.zeros(x.shape[1])
    target_mean = y.mean(0) if centred else np.zeros(y.shape[1])
    x, y = x - source_mean, y - target_mean
    for vectors, before, name in ((x, source, "source"), (y, target, "target")):
        if np.abs(vectors).max() <= 1e-12 * max(1e-300, float(np.abs(before).max())):
            what = "all alike" if centred else "all zero"
            raise ValueError(f"{name} vectors are {what}, so that no map can be learned; give vectors of other texts")
    return x, y, source_mean, target_mean
