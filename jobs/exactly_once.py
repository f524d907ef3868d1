"""Rows written into folders `split=...` exactly once by Ray Data, whatever was killed in between.

Ray Data's checkpoint notes the ids of every committed file, so that a pipeline that is run again leaves those rows out.
It has traps; they are in the docstring of tests/jobs/test_encode_resume.py. The notes, `ids`, lie in the progress
folder beside the output, which lives as long as the job is not done.
"""

from collections.abc import Mapping
from json import loads
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import ray.data
from ray.data import SaveMode
from ray.data.checkpoint import CheckpointConfig

from jobs.outputs import STATS_FILE, SUCCESS_FILE, delete_ours, require_ours
from jobs.shards import read_ids

RUN_FILE = "run.json"  # in the progress folder, until the statistics hold the same
WRITE_CPUS = 0.25  # a write is short and mostly waits for the disk


def progress_folder(out: Path) -> Path:
    """Where a job that writes into `out` keeps what it goes on from."""
    return out.with_name(f".{out.name}.progress")


def start_over(out: Path, known_by: str) -> None:
    """Deletes what an earlier run left.

    Args:
        out: the folder.
        known_by: a key that runs of this job have and other jobs' have not; who made a damaged folder may be unknown.

    Raises:
        ValueError: the folder holds what no such job made.
    """
    require_ours(out, _is_split)
    made_by = run_that_made(out)
    if made_by is not None and known_by not in made_by:
        raise ValueError(f"--overwrite would delete {out}, which another job made; choose another folder")
    rmtree(progress_folder(out), ignore_errors=True)  # first: killed in between, the next run would skip what is gone
    delete_ours(out, _is_split)


def finished(out: Path) -> dict[str, Any] | None:
    """The statistics of a run that came to its end; None if there is more to do."""
    if not (out / SUCCESS_FILE).is_file():
        return None
    return loads((out / STATS_FILE).read_text(encoding="utf-8"))


def run_that_made(out: Path) -> dict[str, Any] | None:
    """What made what lies in a folder, whole or not; None if that is not known."""
    stats, unfinished = finished(out), progress_folder(out) / RUN_FILE
    if stats is not None:
        return stats.get("run")
    return loads(unfinished.read_text(encoding="utf-8")) if unfinished.is_file() else None


def discard_uncommitted(out: Path, done_ids: Path) -> None:
    """Deletes the files of writes that were cut short, so that nobody counts their rows.

    Ray Data would do it too, when the pipeline starts: `X.pending.parquet` in `done_ids` says that files X* in `out`
    do not count.
    """
    for note in done_ids.glob("*.pending.parquet"):
        for file in out.rglob(f"{note.name.removesuffix('.pending.parquet')}*"):
            file.unlink()


def checkpointed(done_ids: Path) -> ray.data.DataContext:
    """The context of a pipeline that leaves out the rows whose ids are in `done_ids`, and notes there what it writes.

    A dataset takes its context when it is made: all of it belongs into `with DataContext.current(...)`.
    """
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # Ray's own wrapping loses what it wraps on the way to the driver
    context.memory_usage_poll_interval_s = None  # a thread in every worker, for a figure that nobody reads here
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(done_ids), delete_checkpoint_on_success=False
    )
    return context


def write_splits(dataset: ray.data.Dataset, out: Path, cores: int, parquet: Mapping[str, Any]) -> None:
    """Writes each block's rows into the folders of their column `split`, as `parquet` says."""
    dataset.write_parquet(
        str(out),
        partition_cols=["split"],
        mode=SaveMode.APPEND,
        ray_remote_args={"num_cpus": WRITE_CPUS},
        concurrency=max(2, cores // 4),
        **parquet,
    )


def ids_by_split(out: Path) -> dict[str, np.ndarray]:
    """[rows] int64 for each split, the ids in its files."""
    return {
        folder.name.removeprefix("split="): read_ids(folder.rglob("*.parquet"))
        for folder in sorted(out.glob("split=*"))
    }


def distinct(by_split: Mapping[str, np.ndarray], out: Path) -> np.ndarray:
    """[rows] int64, all ids; our own promise is checked at the end of each run: none stands twice.

    Raises:
        ValueError: some do.
    """
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *by_split.values()])
    found = np.unique(ids)
    if len(found) != len(ids):
        raise ValueError(
            f"--out {out}: {len(ids) - len(found):,} ids stand twice, so files were added to it from elsewhere; "
            "give --overwrite to make it anew"
        )
    return found


def _is_split(path: Path) -> bool:
    return path.name.startswith("split=")
