"""The bare model in a process of its own: what the machine gives before HTTP, Ray and queues take their part.

It loads the checkpoint as a replica does, in the precision that an inverter takes on this machine, and computes only
while it is asked for something, so that it and a server can take turns of seconds.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.serve_checkpoints import random_vectors
from benchmarks.serve_percentile import percentile
from embinv.inverter import TextInverter, load_inverter

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (8, 16, 32, 64, 128, 256)
STEPS = 8  # what a request without `steps` gets
WARM_UP = 10  # single vectors


class BareModel:
    """Asks the process; see `bare_model`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.precision: str = self._read()["precision"]

    def rate(self, batch: int, seconds: float) -> float:
        """Inversions a second of a batch, again and again for some seconds; one call at least.

        All rows are the vector that the load generator sends, so that both sides make the same passes.
        """
        return float(self._ask({"batch": batch, "seconds": seconds})["rate"])

    def latency(self, count: int) -> dict[str, float]:
        """Milliseconds of inverting one vector, `count` different ones after another: p50 and p99."""
        return self._ask({"count": count})

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the bare model ended with {self._process.wait()}")
        return json.loads(line)


@contextmanager
def bare_model(checkpoint: Path, threads: int, environment: Mapping[str, str]) -> Iterator[BareModel]:
    """The model in another process, until the block ends.

    Args:
        checkpoint: a folder.
        threads: CPU threads.
        environment: of the process, as the server's.

    Raises:
        RuntimeError: the process ended.
    """
    command = [sys.executable, "-m", "benchmarks.serve_bare", str(checkpoint), str(threads)]
    # Ray gives a replica as many OpenMP threads as it reserves CPUs.
    environment = dict(environment) | {"OMP_NUM_THREADS": str(threads)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        try:
            yield BareModel(process)
        finally:
            process.kill()


def _rate(inverter: TextInverter, batch: int, seconds: float) -> dict[str, float]:
    rows = np.repeat(random_vectors(1), batch, axis=0)
    inverter.invert(rows, steps=1)  # the first pass of each shape is slow
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < seconds:
        inverter.invert(rows, steps=STEPS)
        calls += 1
    return {"rate": calls * batch / (time.perf_counter() - began)}


def _latency(inverter: TextInverter, count: int) -> dict[str, float]:
    vectors = random_vectors(count)
    spent = []
    for row in range(-WARM_UP, count):
        began = time.perf_counter()
        inverter.invert(vectors[row % count][None], steps=STEPS)
        spent.append((time.perf_counter() - began) * 1000)
    timed = spent[WARM_UP:]
    return {"p50_ms": percentile(timed, 50), "p99_ms": percentile(timed, 99)}


def _answer_on_stdout(checkpoint: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    inverter = load_inverter(checkpoint, batch_size=max(BATCHES))
    print(json.dumps({"precision": inverter.precision}), flush=True)
    for line in sys.stdin:
        what = json.loads(line)
        found = _latency(inverter, **what) if "count" in what else _rate(inverter, **what)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS"), "started by bare_model"
    _answer_on_stdout(Path(sys.argv[1]), int(sys.argv[2]))
