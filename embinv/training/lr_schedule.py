"""Learning-rate factors as functions of progress, the share of the run that is done, in [0, 1].

A run is measured in steps or in minutes; the shape does not know which, so a time budget is always used to its end.
"""

import math
from collections.abc import Callable


def trapezoid(progress: float, warmup: float, decay: float) -> float:
    """Rises linearly over `warmup`, stays at 1, falls linearly to 0 over the last `decay` of the run."""
    rise = 1.0 if warmup == 0 else min(1.0, progress / warmup)
    fall = 1.0 if decay == 0 else min(1.0, (1.0 - progress) / decay)
    return max(0.0, min(rise, fall))


def cosine(progress: float, warmup: float, decay: float) -> float:
    """Rises linearly over `warmup`, then follows half a cosine to 0; `decay` is not used."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - warmup) / (1.0 - warmup))))


SCHEDULES: dict[str, Callable[[float, float, float], float]] = {"trapezoid": trapezoid, "cosine": cosine}
