"""The seam of what is done to vectors before they are stored, so that a leaked store says less.

A defence is fitted once, on vectors of whoever keeps the store, and then changes each vector by itself. What it gives
up in bytes is said here; what it gives up in retrieval, and what it hides, is measured by `embinv.audit.sweep`.
Text is not touched here: see `redaction`.

Shapes: N vectors, D of the encoder, S of the store.
"""

from typing import Protocol

import numpy as np

UNIT = 1e-3  # how far from 1 the norm of a vector of unit length may be: more than float16 rounds


class Fitted(Protocol):
    """A defence that knows the encoder's space."""

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        """What lies in the store, decoded: [N, S] float32 for vectors [N, D]. Only what is random reads the seed."""
        ...

    def query(self, vectors: np.ndarray) -> np.ndarray:
        """Queries [N, D] in the store's space: [N, S] float32, exact wherever the store is not."""
        ...

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        """What one who knows of the encoder nothing but D puts into an inverter: [N, D] float32 for [N, S]."""
        ...


class Defence(Protocol):
    """One defence at one setting."""

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    @property
    def setting(self) -> str:
        """Its strength as tables show it, such as `0.05 of the norm`; empty where there is nothing to set."""
        ...

    def bytes_per_vector(self, dim: int) -> int:
        """What a stored vector of the encoder's `dim` numbers takes."""
        ...

    def fit(self, vectors: np.ndarray, seed: int) -> Fitted:
        """Learns what it must know of the space.

        Args:
            vectors: [N, D] of the encoder.
            seed: of what is random in it; a secret where the defence is one.

        Raises:
            ValueError: it cannot be had for these vectors; the message names the setting.
        """
        ...


def are_unit(vectors: np.ndarray) -> bool:
    """Whether all rows of [N, D] have length 1."""
    return bool((np.abs(np.linalg.norm(vectors.astype(np.float32), axis=1) - 1) < UNIT).all())


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """[N, D] float32 rows of length 1; a row of zeros stays one."""
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def padded(stored: np.ndarray, dim: int) -> np.ndarray:
    """[N, D] float32: rows [N, S] with zeros behind them."""
    return np.pad(stored.astype(np.float32), ((0, 0), (0, dim - stored.shape[1])))
