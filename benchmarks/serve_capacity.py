"""What serving takes of the model's speed: throughput over the bare model's, latency, time of one request."""

import asyncio
import sys
import time
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import alternating
from benchmarks.serve_bare import BATCHES, BareModel, bare_model
from benchmarks.serve_checkpoints import random_vectors
from benchmarks.serve_hey import rate_of, run_hey, statuses_of
from benchmarks.serve_load import Answer, body_of, closed_loop, counted, in_sequence, open_loop
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
SWEEP_S, HTTP_S, BARE_S = 3.0, 20.0, 6.0  # of a batch in the sweep, of a turn of HTTP, of one of the bare model
WARM_UP = 20
CHUNKS = 4  # turns of the sequential requests
DISTINCT = 64


def measure_capacity(checkpoint: Path, arguments: Namespace) -> dict[str, Any]:
    """HTTP's inversions a second over the bare model's, and latency at 80% of them.

    Which batch is the bare model's best is found before the server starts. Then the two sides take turns of seconds,
    since a machine's speed may change within minutes; each turn of HTTP is compared with those of the bare model on
    either side of it, and the median of the shares counts.
    """
    with bare_model(checkpoint, arguments.threads, _environment(arguments.proxy)) as bare:
        batches = _sweep(bare, arguments.repeats)
        best = max(batches, key=lambda batch: batches[batch])
        with serve_run(checkpoint, arguments.proxy, threads=arguments.threads) as server:
            turns = _turns(server, bare, best, max(1, round(arguments.seconds / HTTP_S)))
            capacity = median(turn["http"] for turn in turns)
            batches_seen = asyncio.run(_watched(server))
            late, statuses = asyncio.run(_loaded(server, capacity, arguments.seconds))
        return {
            "capacity_share": round(median(turn["share"] for turn in turns), 3),
            "latency_80": {name: round(value, 3) for name, value in late.items()},
            "capacity": {
                "http_inversions_per_second": round(capacity, 2),
                "bare_inversions_per_second": round(median(turn["bare"] for turn in turns), 2),
                "bare_batch": best,
                "bare_before_the_server": {str(batch): round(rate, 2) for batch, rate in batches.items()},
                "precision": bare.precision,
                "clients": CLIENTS,
                **batches_of(batches_seen),
                "turns": [{name: round(value, 3) for name, value in turn.items()} for turn in turns],
                "statuses_at_80": statuses,
            },
        }


def _sweep(bare: BareModel, repeats: int) -> dict[int, float]:
    """Median inversions a second of each batch; there and back again, so that no batch has all the good moments."""
    rates: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for repeat in range(repeats):
        for batch in alternating(BATCHES, repeat):
            rates[batch].append(bare.rate(batch, SWEEP_S))
    found = {batch: median(values) for batch, values in rates.items()}
    said = ", ".join(f"{batch}: {rate:.1f}" for batch, rate in found.items())
    print(f"bare, inversions/s by batch: {said}", file=sys.stderr, flush=True)
    return found


def _turns(server: Server, bare: BareModel, batch: int, turns: int) -> list[dict[str, float]]:
    body = body_of(random_vectors(1)[0])
    in_sequence(server.invert, [body], WARM_UP)
    found = []
    before = bare.rate(batch, BARE_S)
    for turn in range(1, turns + 1):
        http, _ = capacity_of(server, HTTP_S)
        after = bare.rate(batch, BARE_S)
        own = (before + after) / 2
        found.append({"http": http, "bare": own, "share": http / own})
        print(f"turn {turn} of {turns}: bare {own:.2f}/s, share {http / own:.2f}", file=sys.stderr, flush=True)
        before = after
    return found


def _environment(proxy: str) -> dict[str, str]:
    with scratch_folder() as folder:
        return serving_environment(folder, proxy)


def capacity_of(server: Server, seconds: float) -> tuple[float, dict[str, int]]:
    """Inversions a second of CLIENTS clients with one vector each; answers by status.

    Raises:
        RuntimeError: too little was answered with 200.
    """
    rows = run_hey(server.invert, body_of(random_vectors(1)[0]), CLIENTS, seconds)
    rate = rate_of(rows, CLIENTS)
    if not rate or set(statuses_of(rows)) != {"200"}:
        raise RuntimeError(
            f"in {seconds:.0f} s {CLIENTS} clients got {statuses_of(rows)}, and two answers each, all of them 200, are "
            f"wanted. The server printed:\n{server.last_lines()}"
        )
    print(f"HTTP, {CLIENTS} clients: {rate:.2f} inversions/s", file=sys.stderr, flush=True)
    return rate, statuses_of(rows)


async def _watched(server: Server) -> list[Answer]:
    """Answers of as many clients again, this time looked at."""
    bodies, answers = [body_of(random_vectors(1)[0])], []
    until = time.monotonic() + HTTP_S
    await closed_loop(server.invert, bodies, CLIENTS, lambda: time.monotonic() > until, answers)
    return answers


def batches_of(answers: list[Answer]) -> dict[str, float]:
    """Vectors in a batch, and the share of the time that the model is at work, both of the batches between two others.

    A machine whose speed changes changes neither; what is missing from 1 is what the model waits for the server.
    """
    found: dict[float, list[Answer]] = {}
    for answer in answers:
        if answer.model_ms is not None:
            found.setdefault(answer.model_ms, []).append(answer)
    ends = sorted((min(each.ended for each in batch), model_ms) for model_ms, batch in found.items())
    if len(ends) < 3:
        return {}
    between = [model_ms for _, model_ms in ends[1:-1]]
    seconds = ends[-2][0] - ends[0][0]
    return {
        "mean_batch": round(sum(len(found[model_ms]) for model_ms in between) / len(between), 2),
        "model_at_work": round(sum(between) / 1000 / seconds, 3),
    }


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
    with bare_model(checkpoint, arguments.threads, _environment("shipped")) as bare:
        found = {name: _overhead(checkpoint, arguments, name, bare) for name in proxies}
    shipped = shipped_proxy()
    return {
        "overhead_ms": found.get(shipped, found["ray"])["overhead_ms"],
        "overhead": {"shipped_proxy": shipped, "requests": arguments.requests} | found,
    }


def _overhead(checkpoint: Path, arguments: Namespace, proxy: str, bare: BareModel) -> dict[str, Any]:
    """A server and the bare model in turns: the middle one of the differences of their p50 counts."""
    size = max(1, arguments.requests // CHUNKS)
    bodies = [body_of(vector) for vector in random_vectors(size)]
    answers: list[Answer] = []
    more, own = [], []
    with serve_run(checkpoint, proxy, threads=arguments.threads) as server:
        in_sequence(server.invert, bodies, WARM_UP)
        for _ in range(CHUNKS):
            own.append(bare.latency(size)["p50_ms"])
            chunk = in_sequence(server.invert, bodies, size)
            more.append(latencies_of(chunk)["p50_ms"] - own[-1])
            answers += chunk
    latency = latencies_of(answers)
    found = {
        "overhead_ms": round(median(more), 2),
        "bare_p50_ms": round(median(own), 2),
        "p50_ms": round(latency["p50_ms"], 2),
        "p99_ms": round(latency["p99_ms"], 2),
    }
    print(f"{proxy}: {found}", file=sys.stderr, flush=True)
    return found | {"statuses": counted(answers)}


def tables(result: dict[str, Any]) -> str:
    """Both sides of the capacity and the latencies, or the times of one request."""
    if "overhead" in result:
        found = result["overhead"]
        lines = ["| one request, idle | p50 | the bare model's | more | p99 |", "|---|---|---|---|---|"]
        for name in ("ray", "haproxy"):
            if name in found:
                p50, p99 = found[name]["p50_ms"], found[name]["p99_ms"]
                own, more = found[name]["bare_p50_ms"], found[name]["overhead_ms"]
                lines.append(f"| {name} | {p50:.1f} ms | {own:.1f} ms | {more:.1f} ms | {p99:.1f} ms |")
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
