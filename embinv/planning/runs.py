"""What runs that are finished, or well under way, say about how fast they were: from the records that jobs leave.

Pairs have `_stats.json` (jobs/encode.py), a training `_run.json` and `progress.jsonl` (jobs/train.py), an inversion
`run.json` and a file for each window (embinv/dump_texts.py). Nothing is run here.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from embinv.planning.throughput import UNTOLD, Throughput

STATS, TRAINING, INVERSION, SETTINGS = "_stats.json", "_run.json", "run.json", "settings.yaml"
PROGRESS, VALIDATIONS = "progress.jsonl", "validations.jsonl"
SITTING = 1.1  # times the last sitting's seconds, between the first and the last window of one that was not broken off
MODEL = tuple(
    f"model.{name}"
    for name in (
        "family",
        "size",
        "backbone",
        "corrector",
        "hidden",
        "layers",
        "heads",
        "ffn",
        "adaln",
        "pseudo_tokens",
    )
)
WORK = {  # settings that decide how much work a unit is
    "encode": ("encoder.model", "encoder.dim", "encoder.prompt", "data.seq_len"),
    "train": (*MODEL, "data.seq_len", "encoder.dim", "training.optimizer", "training.batch_size"),
    "invert": (*MODEL, "data.seq_len", "encoder.dim"),
}


def settings_of(stage: str, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config's tree that decide how much work a unit of a stage is, by `section.key`."""
    found = {}
    for name in WORK[stage]:
        section, _, key = name.partition(".")
        if key in config.get(section, {}):
            found[name] = config[section][key]
    return found


def read_run(folder: Path) -> Throughput:
    """The throughput of whatever run a folder holds.

    Raises:
        ValueError: it holds none, or one that says nothing about its speed yet.
    """
    readers = ((TRAINING, training_run), (INVERSION, inversion_run), (STATS, encoding_run))
    for name, read in readers:
        if (folder / name).is_file():
            try:
                return read(folder)
            except (KeyError, TypeError, ZeroDivisionError, json.JSONDecodeError, yaml.YAMLError, OSError) as error:
                raise ValueError(
                    f"--from {folder}: its {name} does not say how long it took ({type(error).__name__}: {error}); "
                    "give the folder of a run that is done"
                ) from error
    raise ValueError(
        f"--from {folder}: holds no run; give the --out of jobs/encode.py, jobs/train.py or jobs/invert.py"
    )


def encoding_run(folder: Path) -> Throughput:
    """Of pairs: seconds a text of the corpus, and the start that the job noted."""
    stats, settings = _json(folder / STATS), yaml.safe_load((folder / SETTINGS).read_text(encoding="utf-8"))
    texts, start = stats["corpus"]["rows"], stats["start_up_seconds"]
    if "recipe" not in stats["run"]:
        raise ValueError(f"--from {folder}: holds no pairs of jobs/encode.py")
    device, workers = settings["encoding"]["device"], settings["encoding"]["workers"]
    if device == "cuda" and workers is None:
        raise ValueError(
            f"--from {folder}: encoding.workers was left open, so its record does not say how many GPUs it had; give a "
            "run with --set encoding.workers=K, or --measure"
        )
    return Throughput(
        "encode",
        fixed=start,
        per_unit=(stats["seconds"] - start) / texts,
        devices=workers if device == "cuda" else 1,
        gpu=device,
        source=f"{texts:,} texts in {stats['seconds']:,.0f} s, {folder}",
        of=settings_of("encode", settings),
    )


def training_run(folder: Path) -> Throughput:
    """Of a training: seconds a text of its steps and of a validation, and the start if the record has it."""
    record = _json(folder / TRAINING)
    if not record.get("finished"):
        raise ValueError(f"--from {folder}: the run has not come to its end; let it end, or give another one")
    config, steps, seconds = record["config"], record["steps"], record["seconds"]
    samples = record["samples_per_second"] * seconds
    per_unit = min(1 / median(_rates(folder)), seconds / samples)
    settings = config["training"]
    validations = max(1, len(_lines(folder / VALIDATIONS)))
    device = settings["device"]
    return Throughput(
        "train",
        fixed=max(0.0, record.get("seconds_with_start", seconds) - seconds),
        per_unit=per_unit,
        devices=settings["workers"] if device == "cuda" else 1,
        gpu=device,
        source=f"{steps:,} steps in {seconds:,.0f} s, {folder}",
        per_validation=(seconds - samples * per_unit) / validations,
        of=settings_of("train", config) | {"training.batch_size": settings["batch_size"] or round(samples / steps)},
    )


def _rates(folder: Path) -> list[float]:
    """Texts a second, of each line of a training's progress that has any."""
    try:
        rates = [json.loads(line)["samples_per_second"] for line in _lines(folder / PROGRESS)]
        found = [float(rate) for rate in rates if rate]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"--from {folder}: its {PROGRESS} cannot be read ({type(error).__name__}: {error}); give another run"
        ) from error
    if not found:
        raise ValueError(f"--from {folder}: its {PROGRESS} holds no speed; give a run of more steps")
    return found


def inversion_run(folder: Path) -> Throughput:
    """Of an inversion, finished or under way: seconds a vector.

    Its record says neither what it ran on nor how large the inverter is; whoever plans with it has to be told.
    """
    run = _json(folder / INVERSION)
    if (folder / STATS).is_file():
        stats = _json(folder / STATS)
        rows, seconds = stats["rows"], stats["seconds"]
        _, apart = _since_the_first(folder)
        if apart > SITTING * seconds:
            raise ValueError(f"--from {folder}: was inverted in several sittings, of which only the last was timed")
    else:
        rows, seconds = _since_the_first(folder)
    if not rows or not seconds:
        raise ValueError(f"--from {folder}: too little of it is done to say how fast it is; wait for some windows")
    return Throughput(
        "invert",
        fixed=0.0,
        per_unit=seconds / rows,
        devices=1,
        gpu=UNTOLD,
        source=f"{rows:,} vectors in {seconds:,.0f} s, start included, {folder}",
        of={"passes": run["steps"]},
    )


def _since_the_first(folder: Path) -> tuple[int, float]:
    """Rows of all windows but the first that was written, and the seconds between the first and the last."""
    files = sorted(folder.glob("window-*.parquet"), key=lambda path: path.stat().st_mtime)
    try:
        rows = sum(pq.read_metadata(file).num_rows for file in files[1:])
    except pa.ArrowException as error:
        raise ValueError(f"--from {folder}: one of its windows cannot be read ({error})") from error
    return rows, files[-1].stat().st_mtime - files[0].stat().st_mtime if files else 0.0


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
