"""Stores that keep less of each number: int8, signs only, and product quantisation (Jégou et al. 2011).

int8 and product quantisation are FAISS's (`ScalarQuantizer` QT_8bit, `ProductQuantizer`; the extra `audit`). What is
given out is the decoded content, which whoever has the index file can compute. Queries stay exact, as FAISS's
asymmetric distances have them. Quantisation is made to save bytes; as a defence it is a side effect.

Shapes: N vectors, D embedding, M parts.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Int8:
    """A byte for each number, evenly spaced between the least and the greatest of its dimension."""

    name: str = "int8"
    setting: str = ""

    def bytes_per_vector(self, dim: int) -> int:
        return dim

    def fit(self, vectors: np.ndarray, seed: int) -> "FittedCodes":
        """Takes the range of each dimension; what lies outside later is cut.

        Raises:
            ValueError: FAISS is not installed.
        """
        faiss = _faiss(self.name)
        quantizer = faiss.ScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit)
        quantizer.train(_rows(vectors))
        return FittedCodes(quantizer)


@dataclass(frozen=True)
class Product:
    """One of 2^bits centroids for each of M parts of a vector.

    Attributes:
        parts: M, a divisor of D.
        bits: of one part, 1 to 16.

    Raises:
        ValueError: one of them is out of its range.
    """

    parts: int
    bits: int = 8
    name: str = "product quantisation"

    def __post_init__(self) -> None:
        if self.parts < 1 or not 1 <= self.bits <= 16:
            raise ValueError(f"{self.name} {self.setting}: give at least 1 part, of 1 to 16 bits")

    @property
    def setting(self) -> str:
        return f"{self.parts}x{self.bits}"

    @property
    def fewest(self) -> int:
        """Vectors that it takes to find the centroids of a part."""
        return 2**self.bits

    def bytes_per_vector(self, dim: int) -> int:
        return -(-self.parts * self.bits // 8)

    def fit(self, vectors: np.ndarray, seed: int) -> "FittedCodes":
        """Finds the centroids of each part by k-means.

        Raises:
            ValueError: FAISS is not installed, D is no multiple of M, or there are fewer vectors than centroids.
        """
        rows, dim = vectors.shape
        if dim % self.parts:
            raise ValueError(
                f"{self.name} {self.setting}: {dim} dimensions do not part into {self.parts}; give a divisor"
            )
        if rows < self.fewest:
            raise ValueError(
                f"{self.name} {self.setting}: {self.fewest} centroids need as many vectors, got {rows}; give more, or "
                "fewer bits"
            )
        quantizer = _faiss(self.name).ProductQuantizer(dim, self.parts, self.bits)
        quantizer.cp.seed = seed % 2**31  # a C int
        quantizer.cp.min_points_per_centroid = 1  # with fewer than 39 FAISS writes a warning to stderr
        quantizer.train(_rows(vectors))
        return FittedCodes(quantizer)


@dataclass(frozen=True)
class FittedCodes:
    """A trained quantizer of FAISS."""

    quantizer: Any

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        return self.quantizer.decode(self.quantizer.compute_codes(_rows(vectors)))

    def query(self, vectors: np.ndarray) -> np.ndarray:
        return vectors.astype(np.float32)

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        return stored


@dataclass(frozen=True)
class Binary:
    """The sign of each number; zero counts as positive."""

    name: str = "binary"
    setting: str = ""

    def bytes_per_vector(self, dim: int) -> int:
        return -(-dim // 8)

    def fit(self, vectors: np.ndarray, seed: int) -> "FittedBinary":
        """Takes the mean magnitude of each dimension."""
        return FittedBinary(np.abs(vectors.astype(np.float32)).mean(axis=0))


@dataclass(frozen=True)
class FittedBinary:
    """Signs, decoded to the mean magnitude of their dimension: of all values for one sign, that of least squares.

    Attributes:
        magnitudes: [D] float32.
    """

    magnitudes: np.ndarray

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        return np.where(vectors >= 0, self.magnitudes, -self.magnitudes)

    def query(self, vectors: np.ndarray) -> np.ndarray:
        return vectors.astype(np.float32)

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        return stored


def _rows(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _faiss(name: str) -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise ValueError(f"{name} needs FAISS; pip install 'embinv[audit]', or leave {name} out") from error
    return faiss
