"""Are these vectors an encoder's? Their statistics beside those of the vectors that an inverter was trained on.

An encoder gives each coordinate its own part, so that the correlations between coordinates are much alike from one kind
of text to another, and unlike those of any other space: of another encoder, of a rotation, of a permutation. Between
unrelated spaces the correlations of P pairs of coordinates agree as far as chance goes, with a standard deviation of
about 1 / sqrt(P) (docs/LOG.md has what was measured). They do not see a change of sign; the mean does.

Mean, norms and spectrum say more about the texts than about the encoder: other texts have another mean, and a rotation
leaves the spectrum as it is. They are reported, and rank inverters that agree alike, but refuse nothing.

Shapes: D embedding, S coordinates whose correlations are known, P = S (S - 1) / 2.
"""

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np

from embinv.spaces.moments import EmbeddingStatistics, Shape

FEWEST = 30  # vectors below which correlations are mostly noise
AGREES, DEVIATIONS = 0.05, 6.0  # of correlations: both are exceeded by the same encoder, neither by chance
OPPOSITE = -4.0  # standard deviations of the cosine of two unrelated means
ALIKE = 0.5  # agreement from which the texts are of a kind too

Verdict = Literal["alike", "other texts", "unlike", "unknown"]


@dataclass(frozen=True)
class Seen:
    """What is known of a cloud of vectors; `shape` may be missing for those of a checkpoint."""

    statistics: EmbeddingStatistics
    shape: Shape | None


@dataclass(frozen=True)
class Recognition:
    """How far vectors are from those that an inverter was trained on.

    Attributes:
        verdict: alike; other texts of the same encoder; unlike: of another space; unknown: it cannot be said.
        reason: a sentence with the figures that decide.
        rows: vectors looked at.
        dim: theirs.
        expected_dim: that of the inverter.
        agreement: correlation, over pairs of coordinates, between both clouds' correlations; None if not to be had.
        deviations: agreement over what chance gives.
        mean_cosine: of both means.
        mean_distance: between both means, over the spread (root of the trace of the covariance) in training.
        spectrum_distance: half the sum of differences between both spectra, 0 to 1; 0 is the same.
        norm_mean: of the vectors.
        expected_norm: of those in training.
    """

    verdict: Verdict
    reason: str
    rows: int
    dim: int
    expected_dim: int
    agreement: float | None = None
    deviations: float | None = None
    mean_cosine: float | None = None
    mean_distance: float | None = None
    spectrum_distance: float | None = None
    norm_mean: float | None = None
    expected_norm: float | None = None

    @property
    def refused(self) -> bool:
        """Whether inverting them would give texts that mean nothing."""
        return self.verdict == "unlike"

    def to_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self) | {"refused": self.refused}


def recognise(found: Seen, trained: Seen | None, expected_dim: int, encoder: str) -> Recognition:
    """Compares a dump with what an inverter was trained on.

    Args:
        found: of the dump.
        trained: of the checkpoint; None where nobody knows.
        expected_dim: D of the inverter.
        encoder: its name, for the sentence.
    """
    rows, dim = found.statistics.rows, len(found.statistics.mean)
    norm = found.statistics.norm_mean
    if dim != expected_dim:
        why = f"they have {dim} dimensions, those of {encoder} have {expected_dim}"
        return Recognition("unlike", why, rows, dim, expected_dim, norm_mean=norm)
    if trained is None:
        why = f"the checkpoint does not say what vectors of {encoder} look like; only the dimension was compared"
        return Recognition("unknown", why, rows, dim, expected_dim, norm_mean=norm)
    figures: dict[str, float | None] = {
        "norm_mean": norm,
        "expected_norm": trained.statistics.norm_mean,
        "mean_cosine": _cosine(found.statistics.mean, trained.statistics.mean),
        "mean_distance": _mean_distance(found.statistics, trained.statistics),
    }
    if found.shape is not None and trained.shape is not None:
        figures["spectrum_distance"] = _rounded(np.abs(found.shape.spectrum - trained.shape.spectrum).sum() / 2)
        figures["agreement"], figures["deviations"] = agreement(found.shape, trained.shape)
    verdict, why = _verdict(rows, dim, encoder, figures)
    return Recognition(verdict, why, rows, dim, expected_dim, **figures)


def agreement(one: Shape, other: Shape) -> tuple[float | None, float | None]:
    """Correlation over pairs of coordinates between two clouds' correlations, and how many times that of chance it is.

    None where fewer than ten pairs of coordinates move in both.
    """
    if not np.array_equal(one.coordinates, other.coordinates):
        return None, None
    upper = np.triu_indices(len(one.coordinates), 1)
    a, b = one.correlation[upper].astype(np.float64), other.correlation[upper].astype(np.float64)  # [P]
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 10 or not a.std() or not b.std():
        return None, None
    value = float(np.corrcoef(a, b)[0, 1])
    return _rounded(value), round(value * sqrt(len(a)), 2)


def _verdict(rows: int, dim: int, encoder: str, figures: dict[str, float | None]) -> tuple[Verdict, str]:
    agrees, deviations, cosine = figures.get("agreement"), figures.get("deviations"), figures["mean_cosine"]
    if rows < FEWEST:
        return "unknown", f"{rows} vectors are too few to be recognised, which takes {FEWEST}; dimensions agree"
    if agrees is None or deviations is None:
        return "unknown", f"correlations of coordinates are not known of both; dimensions agree with {encoder}"
    said = f"correlations of their coordinates agree by {agrees:.3f} ({deviations:.1f} times what chance gives)"
    if agrees < AGREES or deviations < DEVIATIONS:
        needed = max(AGREES, DEVIATIONS * abs(agrees / deviations) if deviations else 0.0)
        return "unlike", f"{said}, those of {encoder} by {needed:.2f} at least"
    if cosine is not None and cosine * sqrt(dim) < OPPOSITE:
        return (
            "unlike",
            f"{said}, but their mean points away from that of {encoder} (cosine {cosine:.2f}): the signs differ",
        )
    if agrees < ALIKE:
        return "other texts", f"{said}: the encoder's, of other texts than the inverter knows, so fewer will be right"
    return "alike", said


def _cosine(one: list[float], other: list[float]) -> float | None:
    product = float(np.linalg.norm(one) * np.linalg.norm(other))
    return _rounded(np.dot(one, other) / product) if product else None


def _mean_distance(found: EmbeddingStatistics, trained: EmbeddingStatistics) -> float | None:
    spread = float(np.linalg.norm(trained.std))
    return _rounded(float(np.linalg.norm(np.subtract(found.mean, trained.mean))) / spread) if spread else None


def _rounded(value: float) -> float:
    return round(float(value), 4)
