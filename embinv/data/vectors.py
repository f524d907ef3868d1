"""Vectors that a caller brings, and what is wrong with them. Nothing is repaired: a bad vector is named with its row.

Dumps of vectors are read by `embinv.data.dumps`.
"""

import numpy as np


def check_embeddings(embeddings: np.ndarray, dim: int, what: str = "embeddings") -> np.ndarray:
    """Returns [N, D] float32 vectors that can be inverted.

    Args:
        embeddings: [N, D] or [D], any real type.
        dim: D that the inverter takes.
        what: how the message calls them.

    Raises:
        ValueError: wrong shape, or NaN, infinity or only zeros in a row; the message names the row and the fix.
    """
    try:
        given = np.asarray(embeddings)
    except ValueError as error:
        raise ValueError(f"{what}: send numbers, {dim} of them for each vector, in rows of one length") from error
    if given.size and given.dtype.kind not in "fiu":
        raise ValueError(f"{what}: send numbers, {dim} of them for each vector, in rows of one length")
    with np.errstate(over="ignore"):  # what overflows becomes infinity, and its row is named below
        vectors = given.astype(np.float32)
    if vectors.ndim == 1:
        vectors = vectors[None, :]
    if vectors.ndim != 2:
        raise ValueError(f"{what}: expected a matrix [N, {dim}], got shape {vectors.shape}")
    if len(vectors) == 0:
        raise ValueError(f"{what}: no vector was given; send at least one of {dim} numbers")
    if vectors.shape[1] != dim:
        raise ValueError(
            f"{what}: vectors have {vectors.shape[1]} dimensions, this inverter takes {dim}; "
            "use the checkpoint of the encoder that made them"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"{what}: row {row} holds NaN or infinity (or overflows float32); remove or re-encode it")
    zero = ~vectors.any(axis=1)
    if zero.any():
        raise ValueError(f"{what}: row {int(np.argmax(zero))} is a zero vector, which says nothing; remove it")
    return vectors
