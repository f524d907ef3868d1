"""The Pareto front: defences that no other beats in leakage without losing in utility."""

from collections.abc import Sequence


def on_front(leakage: Sequence[float], utility: Sequence[float]) -> list[bool]:
    """Which rows are on the front: leakage is to be low, utility high.

    A row is off it if another is at least as good in both and better in one; of equal rows all are on it or none.

    Raises:
        ValueError: the two have different lengths.
    """
    points = list(zip(leakage, utility, strict=True))
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]
