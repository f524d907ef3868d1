"""Stores that keep fewer dimensions: the first d (Matryoshka, Kusupati et al. 2022), or the principal d (PCA).

Who finds such a store and knows nothing of how it was made puts zeros where dimensions are gone. Of principal
components that is no use to an inverter, since their axes are others; an attacker who adapts undoes the turn.

Shapes: N vectors, D embedding, d kept.
"""

from dataclasses import dataclass

import numpy as np

from embinv.defences.base import padded, unit_rows


@dataclass(frozen=True)
class _Truncation:
    """What both kinds are told.

    Attributes:
        kept: d.
        name: of the kind.

    Raises:
        ValueError: d is below 1.
    """

    kept: int
    name: str = ""

    def __post_init__(self) -> None:
        if self.kept < 1:
            raise ValueError(f"{self.name}: {self.kept} dimensions are none; keep at least 1")

    @property
    def setting(self) -> str:
        return f"{self.kept} dimensions"

    def bytes_per_vector(self, dim: int) -> int:
        return 4 * self.kept


@dataclass(frozen=True)
class Matryoshka(_Truncation):
    """The first d dimensions, brought to unit length as the encoders that are trained for it have them."""

    name: str = "matryoshka"

    def fit(self, vectors: np.ndarray, seed: int) -> "FittedMatryoshka":
        """Takes D.

        Raises:
            ValueError: the vectors have no more than d dimensions.
        """
        _require_fewer(self.name, self.kept, vectors.shape[1])
        return FittedMatryoshka(self.kept, vectors.shape[1])


@dataclass(frozen=True)
class FittedMatryoshka:
    """d of D dimensions."""

    kept: int
    dim: int

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        return self.query(vectors)

    def query(self, vectors: np.ndarray) -> np.ndarray:
        return unit_rows(vectors[:, : self.kept])

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        return padded(stored, self.dim)


@dataclass(frozen=True)
class PCA(_Truncation):
    """Projections on the d principal directions. The mean stays in: without it cosines are not those of the encoder."""

    name: str = "PCA"

    def fit(self, vectors: np.ndarray, seed: int) -> "FittedPCA":
        """Finds the directions of greatest variance, each with its largest entry positive.

        Raises:
            ValueError: the vectors have no more than d dimensions, or are fewer than d.
        """
        _require_fewer(self.name, self.kept, vectors.shape[1])
        if len(vectors) < self.kept:
            raise ValueError(
                f"{self.name} {self.setting}: {len(vectors)} vectors span fewer; give more, or keep fewer dimensions"
            )
        covariance = np.cov(vectors.astype(np.float64), rowvar=False)  # [D, D]
        directions = np.linalg.eigh(covariance)[1][:, ::-1][:, : self.kept]  # [D, d], ascending turned round
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(self.kept)]
        return FittedPCA(directions * np.sign(largest))


@dataclass(frozen=True)
class FittedPCA:
    """Directions of the store.

    Attributes:
        directions: [D, d] float64, orthonormal columns.
    """

    directions: np.ndarray

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        return self.query(vectors)

    def query(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors.astype(np.float64) @ self.directions).astype(np.float32)

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        return padded(stored, len(self.directions))


def _require_fewer(name: str, kept: int, dim: int) -> None:
    if kept >= dim:
        raise ValueError(f"{name}: keeping {kept} of {dim} dimensions leaves none out; keep fewer than {dim}")
