"""pairs -> an inverter: Ray Train starts the workers, DeepSpeed moves the weights, the loop is embinv's.

The run's state lies under DIR/state, one folder a save; a worker that dies is replaced and goes on from the last one,
and so does `--resume`. `DIR/checkpoint` holds the best EMA weights, `DIR/last` the newest.
"""

import hashlib
import os
import sys
import time
from json import dumps, loads
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from embinv.config import Config
from embinv.data.schema import read_recipe, require_same_recipe
from jobs.arguments import (
    add_config_arguments,
    announce,
    config_from,
    job_parser,
    keep_settings,
    output_folder,
    run_job,
    write_json,
)
from jobs.encode import recipe_of
from jobs.follow import followed
from jobs.session import ray_session
from jobs.train_recorder import LOG_FILE
from jobs.train_worker import Task, train_worker

RUN_FILE = "_run.json"


def run_fingerprint(config: Config, data: Path) -> str:
    """Names a run: the same settings and data go on with the same state, others never do."""
    settings = config.model_dump(mode="json", exclude={"evaluation", "encoding"})
    return hashlib.sha256(dumps([settings, str(data)], sort_keys=True).encode()).hexdigest()[:12]


def train(config: Config, data: Path, out: Path, resume: bool) -> dict[str, Any]:
    """Runs the job in an open Ray session; returns what RUN_FILE holds at the end.

    Raises:
        ValueError: data or output folder do not fit the config.
    """
    recipe = read_recipe(data)
    require_same_recipe(recipe, recipe_of(config), data, "the config")
    fingerprint = run_fingerprint(config, data)
    run_path = out / RUN_FILE
    if run_path.is_file():
        record = loads(run_path.read_text(encoding="utf-8"))
        _require_same_run(record, config, data, out, resume)
        if record["finished"] is not None:
            print(f"{out}: all done before, {record['steps']:,} steps")
            return record
    elif (out / "checkpoint").exists() or (out / "last").exists():
        raise ValueError(f"--out {out}: holds a checkpoint of another origin; choose another folder")
    keep_settings(config, out, "train")
    record = {
        "fingerprint": fingerprint,
        "data": str(data),
        "config": config.model_dump(mode="json"),
        "finished": None,
        "steps": 0,
    }
    write_json(run_path, record)
    settings = config.training
    cuda = settings.device == "cuda"
    threads = 1 if cuda else max(1, (os.cpu_count() or 1) // settings.workers)
    task = Task(config.model_dump(mode="json"), str(data), str(out), threads)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=vars(task),
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=cuda,
            resources_per_worker={"CPU": 1, "GPU": 1} if cuda else {"CPU": 1},
        ),
        run_config=RunConfig(
            name=f"state-{fingerprint}",
            storage_path=str(out),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    began = time.monotonic()
    try:
        with followed(out / LOG_FILE):
            result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise ValueError(f"training ended before its time, see {out / LOG_FILE}: {root_cause(error)}") from error
    metrics = result.metrics or {}
    record |= {
        "finished": "yes",
        "steps": metrics["step"],
        "seconds": round(metrics["seconds"], 2),
        "seconds_with_start": round(time.monotonic() - began, 2),
        "samples_per_second": round(metrics["step"] * settings.batch_size / metrics["seconds"], 1),
        "last": {name: value for name, value in metrics.items() if name not in ("step", "seconds")},
    }
    write_json(run_path, record)
    return record


def root_cause(error: BaseException) -> str:
    """The first sentence of what went wrong on a worker."""
    while error.__cause__ is not None:
        error = error.__cause__
    failures = getattr(error, "worker_failures", None) or {}
    return str(next(iter(failures.values()), error)).strip().splitlines()[-1]


def _require_same_run(record: dict[str, Any], config: Config, data: Path, out: Path, resume: bool) -> None:
    """Refuses to go on with other settings, or without being told to."""
    if record["fingerprint"] != run_fingerprint(config, data):
        before, now = Config.model_validate(record["config"]).model_dump(mode="json"), config.model_dump(mode="json")
        differing = [
            f"{section}.{key}: {before[section][key]!r} != {value!r}"
            for section, values in now.items()
            if isinstance(values, dict) and section not in ("evaluation", "encoding")
            for key, value in values.items()
            if before[section][key] != value
        ]
        if record["data"] != str(data):
            differing.append(f"--data: {record['data']} != {data}")
        raise ValueError(
            f"--out {out}: holds a run with other settings ({'; '.join(differing)}); choose another folder"
        )
    if not resume:
        raise ValueError(f"--out {out}: holds this very run; add --resume to go on with it, or choose another folder")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Train an inverter on pairs. DIR/checkpoint is the best so far, DIR/last the newest; both can be used at once.",
        "examples:\n"
        "  python jobs/train.py --config configs/minilm.yaml --data runs/my/pairs --out runs/my --minutes 10\n"
        "  python jobs/train.py --config configs/minilm.yaml --data runs/my/pairs --out runs/my --minutes 10 --resume",
    )
    add_config_arguments(parser)
    parser.add_argument("--data", required=True, metavar="DIR", help="pairs that jobs/encode.py made")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for checkpoint/, last/ and training.png")
    parser.add_argument("--minutes", type=float, metavar="M", help="time budget of training; the schedule fits it")
    parser.add_argument("--workers", type=int, metavar="N", help="training processes")
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR if there is one")
    arguments = parser.parse_args(argv)
    flags = {"training.minutes": arguments.minutes, "training.workers": arguments.workers}
    config = config_from(arguments, [f"{key}={value}" for key, value in flags.items() if value is not None])
    data, out = output_folder(arguments.data, "--data"), output_folder(arguments.out)
    announce(config, "train", data=data, out=out)
    with ray_session():
        record = train(config, data, out, arguments.resume)
    accuracy = record["last"]["token_accuracy"]
    print(f"{record['steps']:,} steps in {record['seconds']:.0f} s, {record['samples_per_second']:,} samples/s")
    print(f"last validation: {accuracy:.1%} of tokens from a full mask; best in {out / 'checkpoint'}")
    print(f"next: python jobs/evaluate.py --checkpoint {out / 'checkpoint'} --data {data} --out {out}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
