"""How far a plan from small runs is off the time that a several times larger run takes, on this machine.

Each job is run as a user runs it, at two small sizes; `embinv.planning` draws a line through them (what a start takes,
and what a unit takes) and plans the large run, which is then made and timed. Nothing is learnt from the large run.

    encode   jobs/encode.py with all-MiniLM-L6-v2, texts
    train    jobs/train.py for a number of steps, on those pairs
    invert   jobs/invert.py with that checkpoint, vectors of those pairs

Prints one JSON line: for each stage planned and measured seconds and |planned - measured| / measured, and the largest
of these as `plan_error`. At the default sizes it takes six minutes on two quiet cores.

    python benchmarks/plan_error.py
    python benchmarks/plan_error.py --stages encode,train --scale 0.25 --keep runs/plan-error
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import numpy as np
import pyarrow.parquet as pq

from benchmarks.encode import ENGLISH, write_corpus
from benchmarks.processes import job_environment
from embinv.data.pairs import read_pairs
from embinv.planning.accelerators import CPU
from embinv.planning.assumptions import ASSUMED
from embinv.planning.stage_plan import STAGES
from embinv.planning.throughput import Trial, plan_measured, throughput_of

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/minilm.yaml"
WINDOW = 512  # texts that are done together: small runs give work to every core too
VECTORS = WINDOW // 4  # of an inversion that are done together
UNITS = {"encode": "texts", "train": "texts", "invert": "vectors"}
BATCH = 64


@dataclass(frozen=True)
class Sizes:
    """Two small sizes and a large one: texts, optimizer steps, vectors."""

    encode: tuple[int, int, int] = (1024, 3072, 12_288)
    train: tuple[int, int, int] = (60, 240, 1200)
    invert: tuple[int, int, int] = (512, 1536, 6144)

    def scaled(self, share: float, workers: int) -> "Sizes":
        """All of them smaller, in whole windows of every worker; of an inversion two, since the first is its start."""

        def whole(sizes: tuple[int, int, int], step: int) -> tuple[int, int, int]:
            found = [max(place * step, round(size * share / step) * step) for place, size in enumerate(sizes, start=1)]
            return found[0], found[1], found[2]

        return Sizes(
            whole(self.encode, max(2, workers) * WINDOW),
            whole(self.train, 4),
            whole(self.invert, 2 * workers * VECTORS),
        )


def plan_error(
    work: Path,
    texts: Path = ENGLISH,
    sizes: Sizes | None = None,
    stages: Sequence[str] = STAGES,
    settings: Sequence[str] = ("model.size=tiny",),
) -> dict[str, Any]:
    """Plans each stage from two small runs, makes the large one, and compares.

    Args:
        work: an empty folder for all that is made.
        texts: Parquet with a text column.
        sizes: of the runs, which are rounded to windows of every worker; None: the default ones.
        stages: the first ones of STAGES, since each needs what the one before it leaves.
        settings: of all jobs, as --set takes them.

    Returns:
        By stage `planned_seconds`, `measured_seconds` and `error`, and `plan_error`, the largest error.

    Raises:
        ValueError: the folder is not empty, a stage lacks one before it, or a job failed.
    """
    if tuple(stages) != STAGES[: len(stages)] or not stages:
        raise ValueError(
            f"stages {','.join(stages)}: each needs those before it; give the first ones of {','.join(STAGES)}"
        )
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise ValueError(f"{work}: is not empty; give a new folder, since what is done already takes no time")
    sizes = (sizes or Sizes()).scaled(1.0, _workers())
    runs: dict[str, Callable[[int, str], Trial]] = {
        "encode": lambda size, name: encode(work, texts, size, name, settings),
        "train": lambda size, name: train(work, size, name, settings),
        "invert": lambda size, name: invert(work, size, name),
    }
    found: dict[str, Any] = {}
    for stage in stages:
        *small, large = getattr(sizes, stage)
        trials = [runs[stage](size, f"small{place}") for place, size in enumerate(small)]
        throughput = throughput_of(stage, trials, 1, CPU, "two small runs")
        units = large * BATCH if stage == "train" else large
        planned = plan_measured(stage, units, UNITS[stage], throughput, 1, ASSUMED).seconds
        measured = runs[stage](large, "large")
        error = abs(planned - measured.wall) / measured.wall
        say(f"{stage}: planned {planned:.1f} s, measured {measured.wall:.1f} s, {error:.1%} off")
        found[stage] = {
            "planned_seconds": round(planned, 1),
            "measured_seconds": round(measured.wall, 1),
            "error": round(error, 3),
            "units": units,
            "small_runs": [[trial.units, round(trial.wall, 1), round(trial.work, 1)] for trial in trials],
            "fixed_seconds": round(throughput.fixed, 1),
            "units_per_second": round(1 / throughput.per_unit, 1),
        }
    return {"plan_error": max(each["error"] for each in found.values()), **found}


def encode(work: Path, source: Path, rows: int, name: str, settings: Sequence[str]) -> Trial:
    """The encode job; its record says when an encoder was ready, and how long it took from the first window on."""
    corpus, out = work / f"texts-{name}", work / f"pairs-{name}"
    if not corpus.is_dir():
        write_corpus(corpus, source, rows, WINDOW)
    wall = job("encode", "--config", CONFIG, "--texts", corpus, "--out", out, *_set(*settings, _windows()))
    stats = json.loads((out / "_stats.json").read_text(encoding="utf-8"))
    return Trial(rows, wall, stats["seconds"] - stats["start_up_seconds"])


def train(work: Path, steps: int, name: str, settings: Sequence[str]) -> Trial:
    """The train job on the pairs of the large encode run; its record has the seconds of steps and validation."""
    out = work / f"run-{name}"
    own = [
        f"training.max_steps={steps}",
        f"training.batch_size={BATCH}",
        "training.minutes=null",
        "training.validations=1",
        "training.validation_rows=32",
        _windows(),
    ]
    wall = job("train", "--config", CONFIG, "--data", work / "pairs-large", "--out", out, *_set(*settings, *own))
    record = json.loads((out / "_run.json").read_text(encoding="utf-8"))
    return Trial(steps * BATCH, wall, record["seconds"])


def invert(work: Path, vectors: int, name: str) -> Trial:
    """The invert job; from the first window that was written to the last, all but the first of each worker are done."""
    dump, out = work / f"vectors-{name}.npy", work / f"recovered-{name}"
    own = read_pairs(work / "pairs-large", "train").embeddings.astype(np.float32)
    np.save(dump, np.resize(own, (vectors, own.shape[1])))
    arguments = ["--checkpoint", work / "run-large" / "checkpoint", "--vectors", dump, "--out", out]
    wall = job("invert", *arguments, "--window-rows", VECTORS)
    written = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in out.glob("window-*.parquet"))
    return Trial(vectors, wall, min(wall, seconds_of_all(written, _workers())))


def seconds_of_all(written: Sequence[tuple[float, int]], workers: int) -> float:
    """Seconds that all vectors take, by those that were written after each worker's first window.

    Args:
        written: (when, rows) of each window, in that order; more than there are workers.
        workers: that wrote them.
    """
    assert len(written) > workers, "sizes are of two windows a worker and more"
    span = written[-1][0] - written[workers - 1][0]
    return span * sum(rows for _, rows in written) / sum(rows for _, rows in written[workers:])


def job(name: str, *arguments: object) -> float:
    """Seconds of a job as a user runs it; what it prints goes to stderr."""
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=job_environment() | {"PYTHONPATH": str(ROOT)}, stdout=sys.stderr, check=False
    )
    if done.returncode != 0:
        raise ValueError(f"jobs/{name}.py ended with {done.returncode}; what it said is above")
    return time.perf_counter() - began


def say(line: str) -> None:
    """Progress goes to stderr, since stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


def _workers() -> int:
    """Inverters that the job starts here (jobs/pool.py)."""
    return min(4, os.cpu_count() or 1)


def _windows() -> str:
    return f"data.shard_rows={WINDOW}"


def _set(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=ENGLISH, metavar="FILE", help="Parquet with a text column")
    parser.add_argument(
        "--stages", default=",".join(STAGES), metavar="A,B", help="the first ones of encode,train,invert"
    )
    parser.add_argument("--scale", type=float, default=1.0, metavar="S", help="of all sizes (default 1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave what was made there (default: delete it)")
    arguments = parser.parse_args()
    if not arguments.texts.is_file():
        raise SystemExit(f"{arguments.texts} is not there; name a Parquet file with a text column: --texts FILE")
    stages = arguments.stages.split(",")
    sizes = Sizes().scaled(arguments.scale, _workers())
    try:
        if arguments.keep is not None:
            result = plan_error(arguments.keep.resolve(), arguments.texts, sizes, stages)
        else:
            with tempfile.TemporaryDirectory(prefix="plan-error") as folder:
                result = plan_error(Path(folder), arguments.texts, sizes, stages)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps({"benchmark": "plan_error", "cores": os.cpu_count()} | result))


if __name__ == "__main__":
    main()
