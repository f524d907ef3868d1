"""What was measured to take how long, as a line: something once, and something for each unit.

    seconds = fixed + per_unit x units

Two sizes give both; one size gives what its record says of its start. From such a line the same work of another size
is planned, on the same hardware or on several times as much of it. Reading records of runs is `embinv.planning.runs`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embinv.planning.assumptions import Assumptions
from embinv.planning.stage_plan import STAGES, Part, StagePlan
from embinv.planning.workload import DAYS

UNTOLD = "hardware that its record does not name"

Point = tuple[float, float]
"""Units and the seconds that they took in all."""


@dataclass(frozen=True)
class Throughput:
    """A stage's speed on some hardware.

    Attributes:
        stage: of STAGES.
        fixed: seconds whatever the size.
        per_unit: seconds for one more unit: a text encoded, a text of a training step, a vector inverted.
        devices: how many it was measured on.
        gpu: what they are, as --gpu has it; `cuda` for some GPU, UNTOLD where nobody knows.
        source: where this is from.
        per_validation: train: seconds of a validation with its save.
        of: the settings that decide how much work a unit is, by `section.key`; what is absent is not compared.
    """

    stage: str
    fixed: float
    per_unit: float
    devices: int
    gpu: str
    source: str
    per_validation: float = 0.0
    of: dict[str, Any] | None = None

    def seconds(self, units: float, validations: int = 0) -> float:
        """Of so much work on the very hardware."""
        return self.fixed + self.per_unit * units + self.per_validation * validations

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def fit(points: Sequence[Point]) -> tuple[float, float]:
    """(fixed, per_unit) of the line through some points, by least squares; neither is below 0.

    Args:
        points: two of different sizes at least.

    Raises:
        ValueError: they do not say how time grows.
    """
    units, seconds = np.array([point[0] for point in points]), np.array([point[1] for point in points])
    if len(set(units.tolist())) < 2:
        raise ValueError("two runs of different sizes are needed to tell what a start takes from what a unit takes")
    per_unit, fixed = np.polyfit(units, seconds, 1).tolist()
    if fixed < 0:  # a start takes no less than nothing: the line goes through the origin then
        return 0.0, float((units * seconds).sum() / (units**2).sum())
    if per_unit <= 0:
        sizes = " and ".join(f"{size:,.0f}" for size in sorted(set(units.tolist())))
        raise ValueError(f"runs of {sizes} units took no longer the larger they were; measure larger ones")
    return fixed, per_unit


@dataclass(frozen=True)
class Trial:
    """A run of a job as a user sees it.

    Attributes:
        units: that were done.
        wall: seconds from the command to its end.
        work: those of them in which units were done, as the job's own record has it.
    """

    units: int
    wall: float
    work: float


def throughput_of(
    stage: str, trials: Sequence[Trial], devices: int, gpu: str, source: str, of: dict[str, Any] | None = None
) -> Throughput:
    """A line through small runs of a job, to plan a large one with.

    What is outside of the work does not grow with it and is noisy, so its mean is taken; the line goes through the
    work alone.

    Args:
        stage: of STAGES.
        trials: of two sizes at least.
        devices: that they ran on.
        gpu: what those are.
        source: for the plan.
        of: see `Throughput`.

    Raises:
        ValueError: the trials do not say how time grows.
    """
    fixed, per_unit = fit([(trial.units, trial.work) for trial in trials])
    outside = float(np.mean([trial.wall - trial.work for trial in trials]))
    return Throughput(stage, fixed + max(0.0, outside), per_unit, devices, gpu, source, of=of)


def per_unit_on(measured: Throughput, gpus: int, assumptions: Assumptions, day: str = "expected") -> float:
    """Seconds for one more unit on so many devices of the kind that was measured.

    Args:
        measured: on some of them.
        gpus: of the plan.
        assumptions: how well more devices than were measured share the work.
        day: expected or good.
    """
    alone = measured.per_unit * measured.devices / gpus
    return alone if gpus <= measured.devices else alone / getattr(assumptions["scaling"], day)


def plan_measured(
    stage: str,
    units: int,
    unit: str,
    measured: Throughput,
    gpus: int,
    assumptions: Assumptions,
    validations: int = 0,
    notes: tuple[str, ...] = (),
) -> StagePlan:
    """A stage by what was measured.

    Args:
        stage: of STAGES.
        units: how many.
        unit: their name.
        measured: on hardware of the same kind.
        gpus: devices of the plan.
        assumptions: how well more devices than were measured share the work.
        validations: train: how often.
        notes: sentences to pass on.
    """
    expected, good = (units * per_unit_on(measured, gpus, assumptions, day) for day in DAYS)
    rate = f"{1 / measured.per_unit:,.4g} {unit}/s" if measured.per_unit else "no time at all"
    on = f"{measured.devices} x {measured.gpu}"
    parts = [
        Part("start", measured.fixed, measured.fixed, "measured"),
        Part(stage, expected, good, f"{rate} on {on}: {measured.source}"),
    ]
    if validations and not measured.per_validation:
        notes = (*notes, "what validations and saves take was not measured, and is not in it")
    elif validations:
        spent = validations * measured.per_validation
        parts.append(Part("validate and save", spent, spent, f"{validations} times {measured.per_validation:.1f} s"))
    return StagePlan(stage, units, unit, gpus, tuple(parts), limit="measured", notes=notes)


def read_measured(path: Path) -> list[Throughput]:
    """What a plan with --measure wrote (--json FILE).

    Raises:
        ValueError: it cannot be read or holds nothing that was measured.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        found = [Throughput(**each) for each in tree["measured"]]
        good = [each for each in found if _can_be(each)]
    except OSError as error:
        raise ValueError(f"--measured {path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"--measured {path}: holds no measurements; make them with embinv plan --measure --json {path.name}"
        ) from error
    if not found or len(good) < len(found):
        raise ValueError(f"--measured {path}: holds no measurements, or such as cannot be; measure anew with --measure")
    return found


def _can_be(measured: Throughput) -> bool:
    """Whether every field is of its kind, which a file that somebody wrote by hand does not promise."""
    seconds = (measured.fixed, measured.per_unit, measured.per_validation)
    return (
        measured.stage in STAGES
        and isinstance(measured.devices, int)
        and measured.devices > 0
        and all(isinstance(each, int | float) and 0 <= each < math.inf for each in seconds)
        and isinstance(measured.gpu, str)
        and isinstance(measured.source, str)
        and isinstance(measured.of, dict | None)
    )


def require_applies(measured: Throughput, gpu: str, settings: dict[str, Any], flag: str) -> None:
    """Refuses what was measured on other hardware or of other work.

    Args:
        measured: what there is.
        gpu: that is planned for.
        settings: of the plan, by `section.key`.
        flag: that brought the measurement, for the message.

    Raises:
        ValueError: naming what differs.
    """
    known = "cuda" if gpu != "cpu" else "cpu"
    if measured.gpu not in (gpu, known, UNTOLD):
        raise ValueError(f"{flag}: {measured.stage} was measured on {measured.gpu}, and --gpu is {gpu}; give that one")
    for name, value in (measured.of or {}).items():
        if name in settings and settings[name] != value:
            given = value if isinstance(value, str) else json.dumps(value)
            instead = f"--set {name}={given}" if "." in name else f"--{name} {given}"
            raise ValueError(
                f"{flag}: {measured.stage} was measured with {name} = {value!r}, and the plan has {settings[name]!r}; "
                f"measure that, or give {instead}"
            )
