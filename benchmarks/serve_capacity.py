"""What serving takes of the model's speed: throughput over the bare model's, latency, time of one request."""

import asyncio
import sys
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serve_bare import bare_latency, bare_throughput
from benchmarks.serve_checkpoints import random_vectors
from benchmarks.serve_hey import rate_of, run_hey, statuses_of
from benchmarks.serve_load import Answer, body_of, counted, in_sequence, open_loop
from benchmarks.serve_percentile import percentile
from benchmarks.serve_server import (
    Server,
    has_haproxy,
    scratch_folder,
    serve_run,
    serving_environment,
    shipped_proxy,
)

CLIENTS = 32
LOADED = 0.8  # of the capacity
BARE_SECONDS = 5.0  # of each batch
WARM_UP = 20
SEQUENTIAL = 200
DISTINCT = 64


def measure_capacity(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """HTTP's inversions a second over the bare model's, and latency at 80% of them; the two sides take turns."""
    rounds = [_round(checkpoint, arguments, turn) for turn in range(arguments.repeats)]
    http = [each["http"] for each in rounds]
    bare = [each["bare"]["best"] for each in rounds]
    late = {name: round(median(each["latency_80"][name] for each in rounds), 3) for name in rounds[0]["latency_80"]}
    return {
        "capacity_share": round(median(http) / median(bare), 3),
        "latency_80": late,
        "capacity": {
            "http_inversions_per_second": round(median(http), 2),
            "bare_inversions_per_second": round(median(bare), 2),
            "precision": rounds[0]["bare"]["precision"],
            "clients": CLIENTS,
            "rounds": rounds,
        },
    }


def _round(checkpoint: Path, arguments: Namespace, turn: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for side in ("bare", "http")[:: -1 if turn % 2 else 1]:
        if side == "bare":
            seconds = min(BARE_SECONDS, arguments.seconds)
            found["bare"] = bare_throughput(checkpoint, arguments.threads, seconds, _environment(arguments.proxy))
            continue
        with serve_run(checkpoint, arguments.proxy, threads=arguments.threads) as server:
            found["http"], found["hey_statuses"] = capacity_of(server, arguments.seconds)
            latency, found["latency_80_statuses"] = asyncio.run(_loaded(server, found["http"], arguments.seconds))
            found["latency_80"] = latency
    print(f"round {turn + 1}: {found}", file=sys.stderr, flush=True)
    return found


def _environment(proxy: str) -> dict[str, str]:
    with scratch_folder() as folder:
        return serving_environment(folder, proxy)


def capacity_of(server: Server, seconds: float) -> tuple[float, dict[str, int]]:
    """Inversions a second of CLIENTS clients with one vector each, after a warm-up; answers by status.

    Raises:
        RuntimeError: nothing was answered with 200.
    """
    body = body_of(random_vectors(1)[0])
    in_sequence(server.invert, [body], WARM_UP)
    rows = run_hey(server.invert, body, CLIENTS, seconds)
    rate = rate_of(rows, seconds)
    if not rate:
        raise RuntimeError(f"no vector was inverted ({statuses_of(rows)}); the server printed:\n{server.last_lines()}")
    print(f"HTTP, {CLIENTS} clients: {rate:.2f} inversions/s", file=sys.stderr, flush=True)
    return rate, statuses_of(rows)


async def _loaded(server: Server, capacity: float, seconds: float) -> tuple[dict[str, float], dict[str, int]]:
    bodies = [body_of(vector) for vector in random_vectors(DISTINCT)]
    answers = await open_loop(server.invert, bodies, LOADED * capacity, seconds)
    return latencies_of(answers), counted(answers)


def latencies_of(answers: list[Answer]) -> dict[str, float]:
    """p50 and p99 of those with status 200, in milliseconds, their ratio, and how late the generator was."""
    took = [answer.took * 1000 for answer in answers if answer.status == 200]
    p50, p99 = percentile(took, 50), percentile(took, 99)
    lag = percentile(((answer.sent - answer.due) * 1000 for answer in answers), 99)
    others = len(answers) - len(took)
    return {"p50_ms": p50, "p99_ms": p99, "p99_over_p50": p99 / p50, "not_200": others, "generator_lag_p99_ms": lag}


def measure_overhead(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """Milliseconds that one request takes more than the model, on an idle server, with each proxy that is here.

    `overhead_ms` is that of the proxy which `make serve` chooses.
    """
    proxies = ["ray", "haproxy"] if has_haproxy() else ["ray"]
    if not has_haproxy():
        print("HAProxy is left out: haproxy is not installed, or there is no cluster/haproxy", file=sys.stderr)
    count = arguments.requests
    bare = [bare_latency(checkpoint, arguments.threads, count, _environment("shipped"))]
    found = {name: _overhead(checkpoint, arguments, name, count) for name in proxies}
    bare.append(bare_latency(checkpoint, arguments.threads, count, _environment("shipped")))  # on either side in time
    own = median(each["p50_ms"] for each in bare)
    for each in found.values():
        each["overhead_ms"] = round(each["p50_ms"] - own, 2)
    shipped = shipped_proxy()
    return {
        "overhead_ms": found.get(shipped, found["ray"])["overhead_ms"],
        "overhead": {"shipped_proxy": shipped, "bare_p50_ms": round(own, 2), "requests": count} | found,
    }


def _overhead(checkpoint: Path, arguments: Namespace, proxy: str, count: int) -> dict[str, Any]:
    bodies = [body_of(vector) for vector in random_vectors(count)]
    with serve_run(checkpoint, proxy, threads=arguments.threads) as server:
        in_sequence(server.invert, bodies, WARM_UP)
        answers = in_sequence(server.invert, bodies, count)
        latency = latencies_of(answers)
    found = {"p50_ms": round(latency["p50_ms"], 2), "p99_ms": round(latency["p99_ms"], 2)}
    print(f"{proxy}: {found}", file=sys.stderr, flush=True)
    return found | {"statuses": counted(answers)}


def tables(result: dict[str, Any]) -> str:
    """Both sides of the capacity and the latencies, or the times of one request."""
    if "overhead" in result:
        found = result["overhead"]
        lines = ["| one request, idle | p50 | more than the model |", "|---|---|---|"]
        lines.append(f"| bare model | {found['bare_p50_ms']:.1f} ms | |")
        for name in ("ray", "haproxy"):
            if name in found:
                lines.append(f"| {name} | {found[name]['p50_ms']:.1f} ms | {found[name]['overhead_ms']:.1f} ms |")
        return "\n".join(lines)
    sides, late = result["capacity"], result["latency_80"]
    return "\n".join(
        [
            "| bare model | HTTP | share | p50 at 80% | p99 at 80% | p99 over p50 |",
            "|---|---|---|---|---|---|",
            f"| {sides['bare_inversions_per_second']:,.1f}/s | {sides['http_inversions_per_second']:,.1f}/s "
            f"| {result['capacity_share']:.1%} | {late['p50_ms']:,.0f} ms | {late['p99_ms']:,.0f} ms "
            f"| {late['p99_over_p50']:.2f} |",
        ]
    )
