"""What is to be inverted and in which way, as plain values: one list of tasks, done here or spread over workers.

An evaluation names all its tasks at once. Which worker inverts a vector, and beside which others, does not decide what
is recovered from it: what is drawn belongs to the vector.

Shapes: N vectors, D embedding.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from embinv.decoding.options import DecodingOptions
from embinv.inversion import Inversion
from embinv.inverter import TextInverter


@dataclass(frozen=True)
class Way:
    """A strategy, its passes at most, and its options."""

    strategy: str
    steps: int
    options: DecodingOptions = field(default_factory=DecodingOptions)


@dataclass(frozen=True)
class Task:
    """Vectors to invert in one way.

    Attributes:
        vectors: [N, D] float32, unchecked: those of a baseline are zero.
        way: how.
        seed: for decoders that sample.
        distinct: equal vectors get draws of their own; such a task is done in one piece.
    """

    vectors: np.ndarray
    way: Way
    seed: int = 0
    distinct: bool = False


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes:
        inversions: one for each vector, in order.
        seconds: of work on one worker; of several, their sum.
    """

    inversions: list[Inversion]
    seconds: float


Invert = Callable[[Mapping[str, Task]], dict[str, Done]]
"""Does all tasks, by name."""


def invert_task(
    inverter: TextInverter, task: Task, on_progress: Callable[[int], None] | None = None
) -> tuple[list[Inversion], float]:
    """Inverts a task's vectors now; returns the inversions and the seconds that it took."""
    began = time.perf_counter()
    inversions = inverter.invert_unchecked(
        task.vectors,
        strategy=task.way.strategy,
        steps=task.way.steps,
        seed=task.seed,
        options=task.way.options,
        distinct=task.distinct,
        on_progress=on_progress,
    )
    return inversions, time.perf_counter() - began


def told(done: int, total: int) -> str:
    """The line of progress after some of all vectors."""
    return f"inverting: {done:,} of {total:,} vectors"


def invert_here(inverter: TextInverter, on_progress: Callable[[str], None] = lambda line: None) -> Invert:
    """Does tasks one after another in this process; `on_progress` gets a line after each batch."""

    def invert(tasks: Mapping[str, Task]) -> dict[str, Done]:
        total = sum(len(task.vectors) for task in tasks.values())
        before, found = 0, {}
        for name, task in tasks.items():
            start = before
            found[name] = Done(*invert_task(inverter, task, lambda n, start=start: on_progress(told(start + n, total))))
            before += len(task.vectors)
        return found

    return invert
