"""A measured figure: a value, its standard error over texts, and what each text brings to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt


@dataclass(frozen=True)
class Figure:
    """A measured value with its standard error over n texts.

    Attributes:
        value: the figure.
        standard_error: over texts, since tokens of one text are not independent.
        n: texts.
        parts: of each text; the figure is their sum over that of `wholes`. Empty where the figure is no such ratio.
        wholes: of each text.
    """

    value: float
    standard_error: float
    n: int
    parts: Sequence[float] = field(default=(), repr=False, compare=False)
    wholes: Sequence[float] = field(default=(), repr=False, compare=False)


def mean_figure(values: Sequence[float]) -> Figure:
    """Mean and standard error of one value per text.

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 texts, got {n}")
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    return Figure(mean, sqrt(variance / n), n, values, [1.0] * n)


def ratio_figure(parts: Sequence[float], wholes: Sequence[float]) -> Figure:
    """Sum of the parts over sum of the wholes, each given for one text; dimension of a part over that of a whole.

    The standard error is that of a ratio estimator over texts (Cochran 1977, eq. 2.46).

    Raises:
        ValueError: fewer than two texts, different counts, or a whole that is not positive.
    """
    n = len(wholes)
    if n < 2 or min(wholes) <= 0:
        raise ValueError(f"a ratio needs at least 2 texts, each with something to count, got {n}")
    ratio = sum(parts) / sum(wholes)
    residual = sum((part - ratio * whole) ** 2 for part, whole in zip(parts, wholes, strict=True)) / (n - 1)
    return Figure(ratio, sqrt(residual / n) / (sum(wholes) / n), n, parts, wholes)


def rounded(figures: Mapping[str, Figure], digits: int = 4) -> dict[str, float]:
    """name and name_se of each figure, as reports hold them."""
    flat = {}
    for name, figure in figures.items():
        flat[name] = round(figure.value, digits)
        flat[f"{name}_se"] = round(figure.standard_error, digits)
    return flat
