"""Pairs of real English that training benchmarks share: made once by the project's own jobs, and kept.

The texts are ../shared/corpus/english.parquet. Where that file is absent, the demo's synthetic records take its place,
which is said, since figures on them cannot be compared with figures on real text.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

from benchmarks.processes import job_environment
from embinv.config import load_config
from embinv.data.schema import read_recipe, require_same_recipe
from jobs.outputs import SUCCESS_FILE

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "english.parquet"
CONFIG = "configs/minilm.yaml"
RUNS = ROOT / "runs" / "benchmarks"
REAL, SYNTHETIC = "english", "records"  # folders
RECORDS = 24_000  # at most, of the synthetic ones: many more repeat each other
RECORDS_HELD_OUT = 0.1  # of those, so that there are enough to measure with


def english_pairs(seq_len: int, rows: int) -> Path:
    """Finds or makes pairs of English texts and their all-MiniLM-L6-v2 vectors (two minutes for 100,000 texts).

    Args:
        seq_len: L, tokens of a text with its EOS.
        rows: texts at most; about 96% of them are for training, 2% each for validation and test.

    Returns:
        The folder of the pairs, below runs/benchmarks/english or, without the corpus, runs/benchmarks/records.

    Raises:
        ValueError: a job failed, in its own words above; or pairs of another recipe were kept.
    """
    real = CORPUS.is_file()
    home = RUNS / (REAL if real else SYNTHETIC)
    count = rows if real else min(rows, RECORDS)
    texts, pairs = home / f"texts-{count}", home / f"pairs-L{seq_len}-{count}"
    if not real:
        print(f"{CORPUS} is absent: the demo's synthetic records take its place", file=sys.stderr)
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two benchmarks at once: one makes them, the other waits
        if not (texts / SUCCESS_FILE).is_file() and not (pairs / SUCCESS_FILE).is_file():
            _job("corpus", texts, ["--texts", str(CORPUS) if real else "records", "--rows", str(count)])
        if not (pairs / SUCCESS_FILE).is_file():
            held_out = [] if real else ["--set", f"data.validation={RECORDS_HELD_OUT}"]
            _job("encode", pairs, ["--texts", str(texts), "--set", f"data.seq_len={seq_len}", *held_out])
    _require_current(pairs, seq_len)
    return pairs


def _require_current(pairs: Path, seq_len: int) -> None:
    """Refuses pairs that the config would no longer make: their folder's name holds rows and L, not the recipe."""
    config = load_config(ROOT / CONFIG, [f"data.seq_len={seq_len}"])
    try:
        require_same_recipe(read_recipe(pairs), config.pairs_recipe(config.open_tokenizer()), pairs, CONFIG)
    except ValueError as error:
        raise ValueError(f"{error}; remove {pairs} to have it made again") from error


def is_real_text(pairs: Path) -> bool | None:
    """Whether pairs are of real texts: false for the records that take their place, null for pairs made elsewhere."""
    return {RUNS / REAL: True, RUNS / SYNTHETIC: False}.get(pairs.parent)


def _job(name: str, out: Path, arguments: list[str]) -> None:
    """Runs a job as a user does; what it prints goes to stderr, since stdout is for figures."""
    command = [sys.executable, f"jobs/{name}.py", "--config", CONFIG, "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=job_environment(), stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise ValueError(f"jobs/{name}.py ended with {done.returncode}; its own words stand above")
