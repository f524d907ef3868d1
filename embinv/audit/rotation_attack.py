"""A secret rotation against an attacker who knows some texts of the store: pairs of a vector and its rotated one.

From k pairs orthogonal Procrustes (Schönemann 1966) gives the rotation, exactly where the pairs span the space. It is
taken of an orthonormal basis of the pairs, so that rounding does not swamp their weakest directions. With fewer pairs
it knows what they span and joins the other directions at random, which is worse than leaving them out. So only the
span is kept of it, and the rest is filled in with what is most likely beside it: the mean of a Gaussian, given the part
that is known, with mean and covariance of vectors that the attacker encodes himself. Held-out vectors of the demo's
encoder (D 384) come back with these mean cosines:

    pairs                       50     100    200    350    500
    Procrustes as it is         0.479  0.675  0.889  0.993  1.000
    its span alone              0.689  0.819  0.943  0.996  1.000
    the span, the rest filled   0.758  0.873  0.969  0.999  1.000

What it does not do: rotations with noise on top, or an attack without pairs.

Shapes: k pairs, P vectors of the attacker, N held out, D embedding, r dimensions that the pairs span.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from embinv.metrics.figures import Figure, rounded
from embinv.spaces.linear import LinearMap, procrustes

SPANNED = 1e-4  # of the greatest singular value: what lies below is lost in the store's rounding
UNKNOWN = 1e-3  # of the mean variance, added to each direction: the attacker's vectors may not have seen all


def undo_rotation(vectors: np.ndarray, rotated: np.ndarray, usual: np.ndarray) -> LinearMap:
    """The map from rotated vectors back to the encoder's space.

    Args:
        vectors: [k, D] of known texts.
        rotated: [k, D] the same as they lie in the store.
        usual: [P, D] vectors of other texts, which need not be in the store: what vectors of this encoder are like.

    Raises:
        ValueError: there are fewer than two of `usual`, or see `procrustes`.
    """
    if len(usual) < 2:
        raise ValueError(f"{len(usual)} vector does not say what this encoder's are like; give at least 2")
    rows, singular, directions = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    spanned = singular > SPANNED * singular[0]
    span = directions[spanned].T  # [D, r]
    combined = (rows[:, spanned] / singular[spanned]).T  # [r, k], which makes an orthonormal basis of the pairs
    turn = procrustes(combined @ rotated, span.T).weight  # [D, D]
    mean = usual.astype(np.float64).mean(axis=0)
    covariance = np.cov(usual.astype(np.float64), rowvar=False)  # [D, D]
    covariance += UNKNOWN * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    fill = np.linalg.solve(span.T @ covariance @ span, span.T @ covariance)  # [r, D], within the span the identity
    return LinearMap(turn @ span @ fill, np.zeros(len(mean)), mean - mean @ span @ fill)


def rotation_rows(
    known: tuple[np.ndarray, np.ndarray],
    usual: np.ndarray,
    rotated: np.ndarray,
    pairs: Iterable[int],
    measure: Callable[[np.ndarray], Figure],
    unrotated: Figure,
) -> list[dict[str, Any]]:
    """What is read from a rotated store with the first k of the known pairs, for each k.

    Args:
        known: the attacker's pairs: [K, D] vectors, and [K, D] the same rotated.
        usual: [P, D] see `undo_rotation`.
        rotated: [N, D] the store.
        pairs: each k, at most K.
        measure: token F1 of what an inverter reads from [N, D] vectors.
        unrotated: token F1 without a rotation.

    Returns:
        `pairs`, `token_f1`, `token_f1_se` and `f1_share`: F1 over that without a rotation, null where that is 0.
    """
    rows = []
    for k in pairs:
        assert 0 < k <= len(known[0]), f"{k} of {len(known[0])} pairs"
        figure = measure(undo_rotation(known[0][:k], known[1][:k], usual)(rotated))
        share = round(figure.value / unrotated.value, 4) if unrotated.value else None
        rows.append({"pairs": k, **rounded({"token_f1": figure}), "f1_share": share})
    return rows
