"""The bare model in a process of its own: what the machine gives before HTTP, Ray and queues take their part.

It loads the checkpoint as a replica does, in the precision that an inverter takes on this machine.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.serve_checkpoints import random_vectors
from benchmarks.serve_percentile import percentile
from embinv.inverter import DiffusionInverter, load_inverter

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (8, 16, 32, 64, 128, 256)
STEPS = 8  # what a request without `steps` gets
WARM_UP = 10  # single vectors


def bare_throughput(checkpoint: Path, threads: int, seconds: float, environment: Mapping[str, str]) -> dict[str, Any]:
    """Inversions a second by batch, and the precision, of one vector again and again.

    It is the vector that the load generator sends, so that both sides make the same passes.

    Args:
        checkpoint: a folder.
        threads: CPU threads.
        seconds: of timing, for each batch; one call at least.
        environment: of the process, as the server's.
    """
    return _apart(environment, "throughput", checkpoint, threads, seconds)


def bare_latency(checkpoint: Path, threads: int, count: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Milliseconds of inverting one vector, `count` different ones after another: p50 and p99."""
    return _apart(environment, "latency", checkpoint, threads, count)


def _apart(environment: Mapping[str, str], measure: str, checkpoint: Path, threads: int, amount: float) -> Any:
    command = [sys.executable, "-m", "benchmarks.serve_bare", measure, str(checkpoint), str(threads), str(amount)]
    # Ray gives a replica as many OpenMP threads as it reserves CPUs.
    environment = dict(environment) | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the bare model ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_throughput(checkpoint: Path, threads: int, seconds: float) -> dict[str, Any]:
    """In this process, see `bare_throughput`."""
    inverter = _load(checkpoint, threads, max(BATCHES))
    vector = random_vectors(1)
    rates = {}
    for batch in BATCHES:
        rows = np.repeat(vector, batch, axis=0)
        inverter.invert(rows, steps=STEPS)  # the first pass of each shape is slow
        began, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - began < seconds:
            inverter.invert(rows, steps=STEPS)
            calls += 1
        rates[str(batch)] = round(calls * batch / (time.perf_counter() - began), 2)
        print(f"bare, batch {batch}: {rates[str(batch)]} inversions/s", file=sys.stderr, flush=True)
    return {"inversions_per_second": rates, "best": max(rates.values()), "precision": inverter.precision}


def measure_latency(checkpoint: Path, threads: int, count: int) -> dict[str, Any]:
    """In this process, see `bare_latency`."""
    inverter = _load(checkpoint, threads, 1)
    vectors = random_vectors(count)
    for row in range(WARM_UP):
        inverter.invert(vectors[row % count][None], steps=STEPS)
    spent = []
    for vector in vectors:
        began = time.perf_counter()
        inverter.invert(vector[None], steps=STEPS)
        spent.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": round(median(spent), 2), "p99_ms": round(percentile(spent, 99), 2)}


def _load(checkpoint: Path, threads: int, batch: int) -> DiffusionInverter:
    torch.set_num_threads(threads)
    return load_inverter(checkpoint, batch_size=batch)


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS"), "started by bare_throughput or bare_latency"
    name, folder, cpus, amount = sys.argv[1:]
    if name == "throughput":
        found = measure_throughput(Path(folder), int(cpus), float(amount))
    else:
        found = measure_latency(Path(folder), int(cpus), int(amount))
    print(json.dumps(found))
