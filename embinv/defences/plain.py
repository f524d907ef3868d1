"""No defence: the store holds the encoder's vectors in float32. What the others are held against."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plain:
    """Leaves vectors as they are; fitted as it stands."""

    name: str = "none"
    setting: str = ""

    def bytes_per_vector(self, dim: int) -> int:
        return 4 * dim

    def fit(self, vectors: np.ndarray, seed: int) -> "Plain":
        return self

    def protect(self, vectors: np.ndarray, seed: int) -> np.ndarray:
        return vectors.astype(np.float32)

    def query(self, vectors: np.ndarray) -> np.ndarray:
        return vectors.astype(np.float32)

    def as_seen(self, stored: np.ndarray) -> np.ndarray:
        return stored
