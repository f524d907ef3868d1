"""A server that changes while it answers: replicas come and go with the load, and a checkpoint is replaced."""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.serve_checkpoints import random_vectors, write_checkpoint
from benchmarks.serve_load import Answer, body_of, closed_loop, counted, failures, in_sequence
from benchmarks.serve_server import Server, cluster, deploy, serve_run

CLIENTS, DISTINCT = 16, 64
TARGET = 2  # ongoing requests a replica
DELAYS = {"upscale_delay_s": 1, "downscale_delay_s": 5}
PATIENCE_S = 120.0  # for each change
TRICKLE_S = 1.0
AROUND_S = 5.0  # of load before a deployment and after it

Seen = list[tuple[float, int]]


def measure_scaling(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """Replicas 1 -> 2 -> 1 and 1 -> 0 -> 1, with seconds since each began; processes count from when they load."""
    common = {"threads": arguments.threads, "target_ongoing_requests": TARGET, **DELAYS}
    with serve_run(checkpoint, arguments.proxy, min_replicas=1, max_replicas=2, **common) as server:
        up_and_down, answers = asyncio.run(_up_and_down(server))
    with serve_run(checkpoint, arguments.proxy, min_replicas=0, max_replicas=1, **common) as server:
        to_zero, more = asyncio.run(_to_zero_and_back(server))
    answers += more
    return {
        "scaling": {
            "seen": {"1-2-1": steps_of(up_and_down), "1-0-1": steps_of(to_zero)},
            "as_wanted": goes_through(up_and_down, [1, 2, 1]) and goes_through(to_zero, [1, 0, 1]),
            "failed": sum(answer.status != 200 for answer in answers),
            "cold_start_s": round(max(answer.took for answer in more), 2),
            "statuses": counted(answers),
            "failures": failures(answers),
        }
    }


def steps_of(seen: Seen) -> list[list[float]]:
    """The moments at which the number of replicas was another, as [seconds, replicas]."""
    steps: list[list[float]] = []
    for seconds, count in seen:
        if not steps or steps[-1][1] != count:
            steps.append([round(seconds, 1), count])
    return steps


def goes_through(seen: Seen, wanted: list[int]) -> bool:
    """Whether these numbers of replicas were seen one after another, whatever was between."""
    left = list(wanted)
    for _, count in seen:
        if left and count == left[0]:
            left.pop(0)
    return not left


class Watch:
    """Looks at the number of replicas again and again."""

    def __init__(self, server: Server) -> None:
        self.server, self.seen, self.began = server, Seen(), time.monotonic()

    async def until(self, count: int) -> bool:
        """Waits until so many replicas run; False: they do not in PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = len(await asyncio.to_thread(self.server.replicas))
            self.seen.append((time.monotonic() - self.began, found))
            if found == count:
                print(f"{self.seen[-1][0]:.1f} s: {count} replicas", file=sys.stderr, flush=True)
                return True
            await asyncio.sleep(0.25)
        return False


async def _loaded(server: Server, clients: int, during: Callable[[], Any]) -> list[Answer]:
    """Answers of clients that go on for as long as `during` takes."""
    bodies = [body_of(vector) for vector in random_vectors(DISTINCT)]
    answers: list[Answer] = []
    over = asyncio.Event()
    load = asyncio.create_task(closed_loop(server.invert, bodies, clients, over.is_set, answers))
    try:
        await during()
    finally:
        over.set()
        await load
    return answers


async def _up_and_down(server: Server) -> tuple[Seen, list[Answer]]:
    watch = Watch(server)
    await watch.until(1)

    async def busy() -> None:
        await watch.until(2)
        await asyncio.sleep(AROUND_S)

    answers = await _loaded(server, CLIENTS, busy)
    quiet = asyncio.create_task(watch.until(1))
    while not quiet.done():
        answers += await _one(server)
        await asyncio.wait([quiet], timeout=TRICKLE_S)
    return watch.seen, answers


async def _to_zero_and_back(server: Server) -> tuple[Seen, list[Answer]]:
    watch = Watch(server)
    answers = await _one(server)  # as started there may be none
    for count in (1, 0):
        await watch.until(count)
    waking = asyncio.create_task(watch.until(1))
    answers += await _one(server)
    await waking
    return watch.seen, answers


async def _one(server: Server) -> list[Answer]:
    return await asyncio.to_thread(in_sequence, server.invert, [body_of(random_vectors(1)[0])], 1)


def measure_rolling(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """`serve_app.deploy` of another checkpoint under load on a cluster: requests that failed, versions seen."""
    other = write_checkpoint(checkpoint.with_name("other"), arguments.size, arguments.vocabulary, seed=1)
    encoder = {"threads": arguments.threads}
    with cluster(cpus=2 * arguments.threads + 2, proxy=arguments.proxy) as (server, address):
        deploy(server, address, checkpoint, **encoder)
        took = 0.0

        async def change() -> None:
            nonlocal took
            await asyncio.sleep(AROUND_S)
            began = time.monotonic()
            await asyncio.to_thread(deploy, server, address, other, **encoder)
            took = time.monotonic() - began
            await asyncio.sleep(AROUND_S)

        answers = asyncio.run(_loaded(server, CLIENTS, change))
    versions = list(dict.fromkeys(answer.version for answer in answers if answer.status == 200))
    return {
        "rolling": {
            "failed": sum(answer.status != 200 for answer in answers),
            "versions": versions,
            "both_versions_seen": len(versions) == 2,
            "deploy_s": round(took, 1),
            "requests": len(answers),
            "longest_s": round(max(answer.took for answer in answers), 2),
            "statuses": counted(answers),
            "failures": failures(answers),
        }
    }


def tables(result: dict[str, Any]) -> str:
    """When there were how many replicas, or what a rolling update did."""
    if "rolling" in result:
        found = result["rolling"]
        return "\n".join(
            [
                "| rolling update | requests | failed | versions | longest |",
                "|---|---|---|---|---|",
                f"| {found['deploy_s']:.0f} s | {found['requests']:,} | {found['failed']} "
                f"| {len(found['versions'])} | {found['longest_s']:.1f} s |",
            ]
        )
    lines = ["| replicas | seen | failed |", "|---|---|---|"]
    for name, steps in result["scaling"]["seen"].items():
        shown = ", ".join(f"{count:.0f} at {seconds:.0f} s" for seconds, count in steps)
        lines.append(f"| {name} | {shown} | {result['scaling']['failed']} |")
    return "\n".join(lines)
