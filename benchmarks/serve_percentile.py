"""Percentiles of what was timed."""

import math
from collections.abc import Iterable


def percentile(values: Iterable[float], share: float) -> float:
    """The least of the values that at least `share` percent of them do not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or the share is not in (0, 100].
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values: nothing was answered")
    if not 0 < share <= 100:
        raise ValueError(f"the share is {share}; give more than 0 and 100 at most")
    return ordered[max(math.ceil(len(ordered) * share / 100), 1) - 1]
