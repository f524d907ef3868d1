"""Gaussian noise on stored vectors, as large as a share of each vector's own length.

    v' = v + e,  e ~ N(0, (s |v|)^2 / D I), so that the root mean square of |e| is s |v|

as Morris et al. ("Text embeddings reveal (almost) as much as text", 2023, section 7) add it, but relative, so that a
setting means the same for encoders that do not normalise. Vectors of unit length are brought back to it. Queries get
no noise. It is no differential privacy: nothing is clipped, and no budget is counted.

Shapes: N vectors, D embedding.
"""

from dataclasses import dataclass

import numpy as np

from embinv.defences.base import are_unit, unit_rows


@dataclass(frozen=True)
class Noise:
    """Noise of a strength.

    Attributes:
        scale: s, above 0.

    Raises:
        ValueError: it is not above 0.
    """

    scale: float
    name: str = "noise"

    def __post_init__(self) -> None:
        if not 0 < self.scale < np.inf:
            raise ValueError(f"noise: scale is {self.scale}; give a share of the norm above 0, such as 0.05")

    @property
    def setting(self) -> str:
        return f"{self.scale:g} of the norm"

    def bytes_per_vector(self, dim: int) -> int:
        return 4 * dim

    def fit(self, vectors: np.ndarray, seed: int) -> "FittedNoise":
        """Sees whether the encoder normalises."""
        return FittedNoise(self.scale, are_unit(vectors))


@dataclass(frozen=True)
class FittedNoise:
    """Noise for one encoder.

    Attributes:
        scale: s.
        unit: whether stored vectors are brought to length 1.
    """

    scale: float
    unit: bool

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        noisy = add_noise(vectors, self.scale, np.random.default_rng(seed))
        return unit_rows(noisy) if self.unit else noisy

    def query(self, vectors: np.ndarray) -> np.ndarray:
        return vectors.astype(np.float32)

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        return stored


def add_noise(vectors: np.ndarray, scale: float, generator: np.random.Generator) -> np.ndarray:
    """[N, D] float32 vectors with Gaussian noise whose root mean square length is `scale` times each vector's own."""
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # [N, 1]
    noise = generator.standard_normal(vectors.shape, dtype=np.float32)
    return vectors + np.float32(scale / np.sqrt(vectors.shape[1])) * norms * noise
