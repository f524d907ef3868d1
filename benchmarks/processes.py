"""Other processes: a call in a fresh one, two sides that take turns, and a job as a user runs it."""

import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

SideT = TypeVar("SideT")


def in_a_fresh_process(function: Any, *arguments: Any) -> Any:
    """The result of a call in a process that has done nothing else."""
    return at_once(1, function, *arguments)[0]


def at_once(copies: int, function: Any, *arguments: Any) -> list[Any]:
    """The results of as many calls side by side, each in a process that has done nothing else."""
    with ProcessPoolExecutor(copies, mp_context=get_context("spawn")) as pool:
        return [call.result() for call in [pool.submit(function, *arguments) for _ in range(copies)]]


def in_turns(sides: Mapping[str, tuple[Any, ...]], repeats: int, first: int = 0) -> dict[str, list[Any]]:
    """Results of (function, *arguments) of each side, in turns, each in a fresh process.

    The order is turned round from one round to the next, since a machine may be faster, or warmer, early in a round.

    Args:
        sides: by name.
        repeats: rounds.
        first: number of the first round.
    """
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for turn in range(first, first + repeats):
        for name in alternating(sides, turn):
            function, *arguments = sides[name]
            found[name].append(in_a_fresh_process(function, *arguments))
    return found


def alternating(sides: Iterable[SideT], turn: int) -> list[SideT]:
    """The sides as they stand in even rounds, and from the last to the first in odd ones."""
    return list(sides)[:: -1 if turn % 2 else 1]


def job_environment() -> dict[str, str]:
    """The environment of a job that is run with this Python, on a Ray cluster that asks for no token."""
    environment = os.environ | {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return environment


def own_ray_environment(folder: Path) -> dict[str, str]:
    """The environment of a program that has a Ray of its own, without what the caller's says of another one.

    Args:
        folder: where that Ray keeps its sockets and logs; a short path.
    """
    return {name: text for name, text in job_environment().items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "180",  # a node whose cores are taken starts slowly
    }
