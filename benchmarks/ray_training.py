"""Samples a second of jobs/train.py as a user runs it, once its workers are under way, on random pairs."""

import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.loops import CONFIG, UNDER_WAY, Case, steady_rate
from benchmarks.pairs import random_pairs, write_pairs
from benchmarks.processes import job_environment
from embinv.config import load_config

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = 16
SPARE = 4.0  # seconds, so that what is timed lies within the run


def write_random_pairs(folder: Path, case: Case, workers: int) -> None:
    """A pairs data set that the job takes for one of its config, with the case's L and nearly its vocabulary."""
    config = load_config(CONFIG, [f"data.seq_len={case.model.seq_len}"])
    tokenizer = config.open_tokenizer()
    ends = (tokenizer.eos_id, tokenizer.pad_id)
    rows = len(case.pairs()) * workers
    training = random_pairs(rows, case.model.vocab_size, case.model.seq_len, config.encoder.dim, ends)
    splits = {"train": training, "validation": training.take(training.ids[:HELD_OUT])}
    write_pairs(folder, config.pairs_recipe(tokenizer), splits)


def job_rate(case: Case, size: str, data: Path, out: Path, workers: int, overrides: list[str]) -> float:
    """Runs the job for the case's seconds with its batch in each of `workers`; returns samples a second of all.

    Raises:
        ValueError: the job failed, or did not give each worker the case's threads.
    """
    settings = {
        "data.seq_len": case.model.seq_len,
        "model.size": size,
        "training.batch_size": case.training.texts_per_step * workers,
        "training.workers": workers,
        "training.threads": case.threads,
        "training.minutes": (UNDER_WAY + case.seconds + SPARE) / 60.0,
        "training.validations": 1,
        "training.validation_rows": HELD_OUT,
        "training.early_stop_patience": "null",
    }
    command = [sys.executable, "jobs/train.py", "--config", str(CONFIG), "--data", str(data), "--out", str(out)]
    for setting in [*overrides, *(f"{key}={value}" for key, value in settings.items())]:
        command += ["--set", setting]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=job_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ValueError(f"jobs/train.py ended with {done.returncode}:\n{done.stdout}")
    if threads_told((out / "train.log").read_text(encoding="utf-8")) != case.threads:
        raise ValueError(f"jobs/train.py did not give its workers {case.threads} thread(s); see {out / 'train.log'}")
    rows = map(json.loads, (out / "progress.jsonl").read_text(encoding="utf-8").splitlines())
    steps = ((row["step"], row["seconds"]) for row in rows)
    return steady_rate(steps, case.training.texts_per_step * workers, case.seconds)


def threads_told(log: str) -> int | None:
    """The threads of a worker, as a run's log tells them."""
    found = re.search(r"(\d+) thread\(s\)", log)
    return int(found[1]) if found else None
