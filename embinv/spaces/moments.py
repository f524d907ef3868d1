"""Statistics of a stream of vectors: norms, mean, variances, spectrum of the covariance, correlations of coordinates.

Memory does not grow with the stream. Norms are of all rows, the rest of a sample of them: every row at first, and
whenever so many more were taken every other one of those that were taken before, each counting for as many rows as it
stands for. Blocks, and streams beside each other, are joined as by Chan, Golub and LeVeque (1983), so that a mean far
from 0 costs no digits.

Shapes: n rows of a block, D embedding, S coordinates whose correlations are kept.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

SAMPLE, SAMPLE_PER_DIM = 16_384, 4  # rows that are taken before they are thinned out: the larger of both
TOGETHER = 2048  # rows of the sample that are multiplied at once
ROWS_AT_ONCE = 4096  # of a matrix that is in memory
COORDINATES = 256  # S at most
STILL = 1e-6  # share of the mean variance below which a coordinate says nothing: MiniLM has three such


class EmbeddingStatistics(BaseModel):
    """What the training embeddings look like, to recognise vectors that come from elsewhere."""

    model_config = ConfigDict(extra="forbid")

    rows: int
    norm_mean: float
    norm_std: float
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class Shape:
    """The form of a cloud of vectors, which another encoder's has not, and a rotated one neither.

    Attributes:
        spectrum: [D] float32, eigenvalues of the covariance over their sum, descending.
        coordinates: [S] int64, which of the D, evenly spaced.
        correlation: [S, S] float32 between these coordinates; NaN for one that stands still.
    """

    spectrum: np.ndarray
    coordinates: np.ndarray
    correlation: np.ndarray

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        save_file({"spectrum": self.spectrum, "coordinates": self.coordinates, "correlation": self.correlation}, path)

    @classmethod
    def load(cls, path: Path) -> "Shape | None":
        """Reads it; None where there is no such file, as in checkpoints that others trained.

        Raises:
            ValueError: it cannot be read.
        """
        if not path.exists():
            return None
        try:
            found = load_file(path)
            shape = cls(found["spectrum"], found["coordinates"], found["correlation"])
        except (OSError, SafetensorError, KeyError) as error:
            raise ValueError(
                f"{path}: no statistics of embeddings ({error}); fetch the checkpoint anew, or delete this file"
            ) from error
        side = len(shape.coordinates)
        if shape.correlation.shape != (side, side) or shape.spectrum.ndim != 1 or side > len(shape.spectrum):
            raise ValueError(
                f"{path}: its parts do not belong together; fetch the checkpoint anew, or delete this file"
            )
        return shape


class Moments:
    """Takes blocks of vectors of D dimensions; `statistics` and `shape` say what they were like."""

    def __init__(self, dim: int) -> None:
        self.dim, self.rows = dim, 0
        self._norms = np.zeros(3)  # rows, mean, squared deviations
        self._weight, self._mean, self._scatter = 0.0, np.zeros(dim), np.zeros((dim, dim))
        self._every, self._taken = 1, 0
        self._held: list[np.ndarray] = []  # of the sample, not yet multiplied

    def add(self, block: np.ndarray) -> None:
        """Takes finite rows [n, D] float32."""
        norms = np.sqrt(np.vecdot(block, block).astype(np.float64))
        mean = norms.mean() if len(norms) else 0.0
        self._norms = _joined(self._norms, len(norms), mean, ((norms - mean) ** 2).sum())
        first = -self.rows % self._every
        self.rows += len(block)
        sample = block[first :: self._every]
        self._held.append(sample.copy())  # a view would hold the whole block
        self._taken += len(sample)
        enough = self._taken >= max(SAMPLE, SAMPLE_PER_DIM * self.dim)
        if enough or sum(map(len, self._held)) >= TOGETHER:
            self._multiply()
        if enough:
            self._taken, self._every = 0, self._every * 2

    def join(self, other: "Moments") -> None:
        """Takes what another stream of vectors of D dimensions was like."""
        other._multiply()
        self._multiply()
        self.rows += other.rows
        self._norms = _joined(self._norms, *other._norms.tolist())
        self._add(other._weight, other._mean, other._scatter)

    def _multiply(self) -> None:
        """Puts what is held of the sample to the rest."""
        sample = np.concatenate(self._held) if self._held else np.zeros((0, self.dim), dtype=np.float32)
        self._held = []
        if len(sample):
            own = sample.mean(axis=0, dtype=np.float64)
            centred = sample - own.astype(sample.dtype)
            scatter = (centred.T @ centred).astype(np.float64)  # [D, D], the product itself in float32
            self._add(float(len(sample) * self._every), own, self._every * scatter)

    def _add(self, weight: float, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self._weight + weight
        if not total:
            return
        apart = mean - self._mean
        self._scatter += scatter + np.outer(apart, apart) * (self._weight * weight / total)
        self._mean += apart * (weight / total)
        self._weight = total

    def statistics(self) -> EmbeddingStatistics:
        """Rounded to what a comparison needs.

        Raises:
            ValueError: no vector was added.
        """
        self._require_some()
        count, mean, squares = self._norms.tolist()
        return EmbeddingStatistics(
            rows=self.rows,
            norm_mean=round(mean, 6),
            norm_std=round(float(np.sqrt(squares / count)), 6),
            mean=[round(float(value), 6) for value in self._mean],
            std=[round(float(value), 6) for value in np.sqrt(np.diag(self._scatter) / self._weight)],
        )

    def shape(self) -> Shape:
        """Spectrum and correlations.

        Raises:
            ValueError: no vector was added.
        """
        self._require_some()
        covariance = self._scatter / self._weight
        values = np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0.0)
        spectrum = values / max(values.sum(), np.finfo(np.float64).tiny)
        dim = len(covariance)
        at = np.linspace(0, dim - 1, min(dim, COORDINATES)).round().astype(np.int64)
        variance = np.diag(covariance)
        std = np.sqrt(np.where(variance > STILL * variance.mean(), variance, np.nan))[at]  # [S]
        correlation = covariance[np.ix_(at, at)] / np.outer(std, std)
        return Shape(spectrum.astype(np.float32), at, correlation.astype(np.float32))

    def _require_some(self) -> None:
        self._multiply()
        if not self.rows:
            raise ValueError("there are no vectors to describe; give at least one")


def _joined(known: np.ndarray, count: float, mean: float, squares: float) -> np.ndarray:
    """Count, mean and squared deviations of two groups of numbers together."""
    total = known[0] + count
    if not total:
        return known
    apart = mean - known[1]
    return np.array([total, known[1] + apart * count / total, known[2] + squares + apart**2 * known[0] * count / total])


def moments_of(embeddings: np.ndarray, rows_at_once: int = ROWS_AT_ONCE) -> Moments:
    """The moments of a matrix [N, D] of any float type, of which no copy is made.

    Raises:
        ValueError: it has no rows.
    """
    if not len(embeddings):
        raise ValueError("there are no vectors to describe; give at least one")
    moments = Moments(embeddings.shape[1])
    for start in range(0, len(embeddings), rows_at_once):
        moments.add(embeddings[start : start + rows_at_once].astype(np.float32))
    return moments
