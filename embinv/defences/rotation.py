"""A secret rotation of the space: every cosine stays, so retrieval loses nothing, and an inverter reads nonsense.

The matrix is drawn evenly from all orthogonal ones (Haar): Q of the QR decomposition of a Gaussian matrix, with the
signs of R's diagonal put into Q (Mezzadri 2007). The secret is the seed. How few known pairs give it away is measured
by `embinv.audit.rotation_attack`.

Shapes: N vectors, D embedding.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rotation:
    """A random orthogonal matrix, drawn from the seed."""

    name: str = "rotation"
    setting: str = "secret"

    def bytes_per_vector(self, dim: int) -> int:
        return 4 * dim

    def fit(self, vectors: np.ndarray, seed: int) -> "FittedRotation":
        """Draws the matrix; of the vectors, D counts."""
        return FittedRotation(haar(vectors.shape[1], np.random.default_rng(seed)))


@dataclass(frozen=True)
class FittedRotation:
    """One rotation.

    Attributes:
        matrix: [D, D] float64, orthogonal.
    """

    matrix: np.ndarray

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        return self.query(vectors)

    def query(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors.astype(np.float64) @ self.matrix).astype(np.float32)

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        return stored


def haar(dim: int, generator: np.random.Generator) -> np.ndarray:
    """An orthogonal matrix [D, D] float64, all of them equally likely."""
    q, r = np.linalg.qr(generator.standard_normal((dim, dim)))
    return q * np.sign(np.diag(r))  # column j times the sign of R_jj
