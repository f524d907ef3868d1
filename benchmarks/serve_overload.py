"""Four times as many requests as a server can answer: what they get, what it costs in memory, and how it ends."""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serve_capacity import capacity_of
from benchmarks.serve_checkpoints import random_vectors
from benchmarks.serve_load import HANGS_S, Answer, ask, body_of, connections, counted, failures, in_sequence, open_loop
from benchmarks.serve_percentile import percentile
from benchmarks.serve_server import Server, serve_run

TIMES = 4
EXPECTED = {200, 429, 503}
CALIBRATION_S = 15.0  # to find the capacity
DISTINCT = 64
PROBES, PAUSE_S = 20, 0.1
WINDOW = 5  # probes whose median tells that it is over
BACK = 1.5  # times the p50 before
WATCHED_S = 120.0  # after the end, at most
MEMORY_EVERY_S = 2.0


def measure_overload(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """TIMES the capacity in open loop: answers by status, those that hang, memory, seconds until p50 is back."""
    with serve_run(checkpoint, arguments.proxy, threads=arguments.threads) as server:
        capacity, _ = capacity_of(server, min(CALIBRATION_S, max(arguments.seconds, 5.0)))
        bodies = [body_of(vector) for vector in random_vectors(DISTINCT)]
        before = probes_p50(in_sequence(server.invert, bodies, PROBES, PAUSE_S))
        memory = server.memory_mb()
        print(f"before: p50 {before * 1000:.1f} ms, {memory:.0f} MB", file=sys.stderr, flush=True)
        answers, probes, ended, peak = asyncio.run(
            _overload(server, bodies, TIMES * capacity, arguments.seconds, before)
        )
        growth = server.memory_mb() - memory
        replied = [answer for answer in answers if answer.status]
        recovery = recovered_after(probes, ended, BACK * before)
        return {
            "overload": {
                "other_answers": sum(answer.status not in EXPECTED for answer in answers),
                "recovery_s": None if recovery is None else round(recovery, 2),
                "memory_growth_mb": round(growth, 1),
                "memory_peak_growth_mb": round(peak - memory, 1),
                "without_retry_after": sum(a.status in (429, 503) and not is_seconds(a.retry_after) for a in answers),
                "hang": sum(answer.took >= HANGS_S for answer in answers),
                "statuses": counted(answers),
                "others": failures(answers, EXPECTED),
                "longest_s": round(max(answer.took for answer in answers), 2),
                "refusal_p99_ms": _refusal_ms(replied),
                "inversions_per_second": round(sum(a.status == 200 for a in answers) / arguments.seconds, 2),
                "capacity": round(capacity, 2),
                "offered_per_second": round(len(answers) / arguments.seconds, 2),
                "generator_lag_p99_ms": round(percentile([(a.sent - a.due) * 1000 for a in answers], 99), 1),
                "p50_before_ms": round(before * 1000, 2),
                "seconds": arguments.seconds,
                "server_lives": server.process.poll() is None,
            }
        }


def _refusal_ms(answers: Sequence[Answer]) -> float | None:
    took = [answer.took * 1000 for answer in answers if answer.status == 429]
    return round(percentile(took, 99), 1) if took else None


def is_seconds(value: str | None) -> bool:
    """Whether a Retry-After says how many seconds, at least one."""
    return value is not None and value.isascii() and value.isdigit() and int(value) >= 1


def probes_p50(probes: Sequence[Answer]) -> float:
    """Seconds of the middle one.

    Raises:
        RuntimeError: one of them was not answered with 200.
    """
    if any(probe.status != 200 for probe in probes):
        raise RuntimeError(f"an idle server does not answer each request with 200: {counted(probes)}")
    return median(probe.took for probe in probes)


def recovered_after(probes: Sequence[Answer], ended: float, most: float) -> float | None:
    """Seconds from the end of the load until WINDOW probes in a row have a median of `most` at most; None: never.

    It counts up to the end of the last of them, and an answer other than 200 is as slow as can be.
    """
    took = [probe.took if probe.status == 200 else float("inf") for probe in probes]
    for last in range(WINDOW, len(probes) + 1):
        if median(took[last - WINDOW : last]) <= most:
            return probes[last - 1].ended - ended
    return None


async def _overload(
    server: Server, bodies: Sequence[str], rate: float, seconds: float, before: float
) -> tuple[list[Answer], list[Answer], float, float]:
    """The load's answers, the probes after its end, when that was, and the most memory seen."""
    peak = 0.0
    over = asyncio.Event()

    async def watch_memory() -> None:
        nonlocal peak
        while not over.is_set():
            peak = max(peak, await asyncio.to_thread(server.memory_mb))
            await asyncio.sleep(MEMORY_EVERY_S)

    watching = asyncio.create_task(watch_memory())
    load = asyncio.create_task(open_loop(server.invert, bodies, rate, seconds))
    await asyncio.wait([load], timeout=seconds)  # its last requests are still in the queue
    ended = time.monotonic()
    probes: list[Answer] = []
    async with connections() as session:
        while recovered_after(probes, ended, BACK * before) is None and time.monotonic() - ended < WATCHED_S:
            number = len(probes) % len(bodies)
            probes.append(await ask(session, server.invert, bodies, number, time.monotonic()))
            await asyncio.sleep(PAUSE_S)
    answers = await load
    over.set()
    await watching
    return answers, probes, ended, peak


def tables(result: dict[str, Any]) -> str:
    """What was answered, and how it ended."""
    found = result["overload"]
    statuses = ", ".join(f"{count:,} x {status}" for status, count in found["statuses"].items())
    back = "never" if found["recovery_s"] is None else f"{found['recovery_s']:.1f} s"
    return "\n".join(
        [
            "| offered | answers | longest | memory | p50 is back after |",
            "|---|---|---|---|---|",
            f"| {found['offered_per_second']:,.0f}/s of {found['capacity']:,.0f}/s | {statuses} "
            f"| {found['longest_s']:.1f} s | {found['memory_growth_mb']:+.0f} MB | {back} |",
        ]
    )
