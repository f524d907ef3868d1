"""What a plan of one stage says: how long each part of it takes, on how many devices, and what limits it."""

from dataclasses import asdict, dataclass
from typing import Any

STAGES = ("encode", "train", "invert")


@dataclass(frozen=True)
class Part:
    """A part of a stage's time.

    Attributes:
        name: what is done.
        expected: seconds on most days.
        good: seconds on a good day.
        note: how they come about.
    """

    name: str
    expected: float
    good: float
    note: str


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name: of STAGES.
        units: how many of what is done.
        unit: what that is.
        gpus: devices that it occupies all the time.
        parts: one after another.
        alongside: what happens at the same time as the longest part, and is hidden by it.
        limit: what takes the time of the longest part.
        notes: sentences about how it was planned.
        warnings: sentences about what will not work, or not well.
    """

    name: str
    units: int
    unit: str
    gpus: int
    parts: tuple[Part, ...]
    alongside: tuple[Part, ...] = ()
    limit: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Expected."""
        return sum(part.expected for part in self.parts)

    @property
    def good_seconds(self) -> float:
        """On a good day."""
        return sum(part.good for part in self.parts)

    @property
    def gpu_hours(self) -> float:
        """Expected, over all devices."""
        return self.gpus * self.seconds / 3600

    def cost(self, price: float) -> float:
        """Of the devices at a price an hour of one, in the price's currency."""
        return self.gpu_hours * price

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {
            "seconds": self.seconds,
            "good_seconds": self.good_seconds,
            "hours": self.seconds / 3600,
            "gpu_hours": self.gpu_hours,
            "good_gpu_hours": self.gpus * self.good_seconds / 3600,
        }


def slowest(parts: list[Part]) -> tuple[Part, tuple[Part, ...]]:
    """Of parts that happen at the same time, the longest, and the others from long to short; good days for each apart.

    On a good day another one may be the longest: the longest has to wait for it all the same.
    """
    ordered = sorted(parts, key=lambda part: -part.expected)
    longest = ordered[0]
    good = max(part.good for part in parts)
    return Part(longest.name, longest.expected, min(good, longest.expected), longest.note), tuple(ordered[1:])
