"""pairs -> an inverter, hypotheses -> a corrector: Ray Train starts workers, DeepSpeed moves weights, the loop is ours.

The run's state lies under DIR/state-<run>, one folder a save (jobs/train_state.py); a worker that dies is replaced and
goes on from the last whole one, and so does `--resume`. `DIR/checkpoint` holds the best EMA weights, `DIR/last` the
newest.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.exceptions
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig

from embinv.config import Config
from embinv.data.corrections import find_hypotheses_recipe, read_hypotheses_recipe
from embinv.data.schema import read_recipe, require_same_recipe
from embinv.data.sole_writer import sole_writer
from embinv.training.objective import OBJECTIVES
from embinv.training.trackers import require_trackers
from jobs.arguments import (
    RunStopped,
    add_config_arguments,
    announce,
    config_from,
    job_parser,
    keep_settings,
    run_job,
    write_json,
)
from jobs.deepspeed_engine import require_exact_sums
from jobs.encode import recipe_of
from jobs.failures import told_plainly
from jobs.follow import followed
from jobs.provenance import end_provenance
from jobs.session import ray_session
from jobs.staging import WRITE_BACK_S, place, shown, staged
from jobs.train_identity import identity_of, read_record, require_finished, require_same_run, run_fingerprint
from jobs.train_places import Waiting, require_places, resources_of
from jobs.train_recorder import LOG_FILE
from jobs.train_start import inverter_to_begin_as
from jobs.train_state import DAMAGED, SAVES, newest_run_state
from jobs.train_trainer import Trainer
from jobs.train_verdict import NoSecondTry, verdict
from jobs.train_worker import Task, train_worker

RUN_FILE = "_run.json"
OWN_FOLDERS = frozenset({"checkpoint", "last", "tensorboard", "mlflow-artifacts", "wandb"})


def is_of_a_run(name: str) -> bool:
    """Which files of a run's folder are its own: pairs and texts may lie there too."""
    folder, below, _ = name.partition("/")
    return not below or folder in OWN_FOLDERS or folder.startswith("state-")


def train(config: Config, data: Path, out: Path, resume: bool) -> dict[str, Any]:
    """Runs the job in an open Ray session; returns what RUN_FILE holds at the end.

    Raises:
        ValueError: data or output folder do not fit the config, or something else that a user can mend.
        RunStopped: the run went wrong; what was saved can be used and gone on from.
        KeyboardInterrupt: Ctrl-C; the workers have ended.
    """
    require_trackers(config.training.trackers)
    require_exact_sums(config.training)
    recipe = read_recipe(data)
    require_same_recipe(recipe, recipe_of(config), data, "the config")
    require_finished(data)
    pairs = identity_of(data)
    if config.model.corrector:
        pairs |= {f"hypotheses.{key}": value for key, value in read_hypotheses_recipe(data).model_dump().items()}
    elif find_hypotheses_recipe(data) is not None:
        raise ValueError(
            f"--data {data}: holds hypotheses, of texts that no inverter may learn from; add --set "
            "model.corrector=true, or give the pairs that jobs/encode.py made"
        )
    if config.model.inverter is not None:
        inverter_to_begin_as(config, recipe)
    with told_plainly(out), sole_writer(out):
        return _train_or_go_on(config, data, pairs, out, resume)


def _train_or_go_on(config: Config, data: Path, pairs: dict[str, Any], out: Path, resume: bool) -> dict[str, Any]:
    """Trains from where an earlier sitting of the same run got to."""
    fingerprint = run_fingerprint(config, data)
    run_path = out / RUN_FILE
    if _holds_weights(out):  # else nothing is lost by other settings: a mistake in them ended the run before it began
        if not run_path.is_file():
            raise ValueError(f"--out {out}: holds a checkpoint of another origin; choose another folder")
        record = read_record(run_path)
        require_same_run(record, config, data, pairs, out, resume)
        if record["finished"] is not None:
            print(f"{out}: all done before, {record['steps']:,} steps")
            return record
    require_places(config.training)
    keep_settings(config, out, "train")
    record = {
        "fingerprint": fingerprint,
        "data": shown(data),
        "pairs": pairs,
        "config": config.model_dump(mode="json"),
        "finished": None,
        "steps": 0,
    }
    write_json(run_path, record)
    storage = out / f"state-{fingerprint}"
    storage.mkdir(exist_ok=True)
    began = time.monotonic()
    _fit(config, data, out, storage)
    record |= _summary(newest_run_state(storage)) | {"seconds_with_start": round(time.monotonic() - began, 2)}
    write_json(run_path, record)
    end_provenance(out, "train")
    return record


def _holds_weights(out: Path) -> bool:
    """Whether a run has left something in its folder that must not be mixed with another's."""
    saves = (path for kind in (SAVES, f"{DAMAGED}*") for path in out.glob(f"state-*/{kind}"))
    return (out / "checkpoint").exists() or (out / "last").exists() or any(saves)


def _fit(config: Config, data: Path, out: Path, storage: Path) -> None:
    """Runs the workers to the end of the run, and shows its log meanwhile."""
    settings = config.training
    cuda, log, resources = settings.device == "cuda", out / LOG_FILE, resources_of(settings)
    trainer = Trainer(
        train_worker,
        train_loop_config=vars(Task(config.model_dump(mode="json"), str(data), str(out), str(storage))),
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=cuda,
            resources_per_worker=resources,
            accelerator_type=settings.accelerator,
            label_selector=settings.nodes or None,
        ),
        run_config=RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            callbacks=[NoSecondTry(log), Waiting(log, settings.workers, resources)],  # type: ignore[list-item]
        ),
    )
    try:
        with _interruptible(), followed(log):
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise verdict(error, out) from error
    except ray.exceptions.RayError as error:  # the actor that watches over the workers is gone
        why = str(error).strip().splitlines()[0]
        raise RunStopped(
            f"Ray Train ended before its time ({why}); run the same command again with --resume"
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a `fit` as it ends anything else.

    Ray Train handles the signal itself: it ends the workers, but then exits with code 0, and leaves its handler behind
    for whatever runs next in this process.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        raise KeyboardInterrupt from end
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _summary(state: dict[str, Any]) -> dict[str, Any]:
    """What RUN_FILE says about a run that is over."""
    last = {name: value for name, value in state["history"][-1].items() if name not in ("step", "seconds")}
    return {
        "finished": state["finished"],
        "steps": state["step"],
        "skipped": state["skipped"],
        "seconds": round(state["seconds"], 2),
        "samples_per_second": round(state["step"] * state["batch_size"] / state["seconds"], 1),
        "last": last,
    }


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Train an inverter on pairs, or a corrector on hypotheses (model.corrector=true).\n"
        "DIR/checkpoint is the best so far, DIR/last the newest; both can be used at once.",
        "A run that was stopped, in whatever way, goes on with the same command and --resume, and comes to the same\n"
        "end as one that never stopped. What may change meanwhile is what it is computed on: the number of workers,\n"
        "training.gradient_accumulation, compile, activation_checkpointing, offloading, max_failures, max_skipped.\n"
        "Texts, times and masks of a step stay the same with them, so the end is the same up to the noise of sums in\n"
        "another order; dropout alone is drawn anew. Only a run by training.max_steps can be repeated: how many steps\n"
        "--minutes are depends on the machine, and so does the learning rate of each.\n"
        "A run that is finished stays so: its learning rate has gone down to zero by the end of its --minutes or\n"
        "training.max_steps, so a longer one is another run, in another folder.\n\n"
        "exit codes: 0 done, 1 the run went wrong, 2 a mistake that the message tells how to mend, 130 Ctrl-C\n\n"
        "examples:\n"
        "  python jobs/train.py --config configs/minilm.yaml --data runs/my/pairs --out runs/my --minutes 10\n"
        "  python jobs/train.py --config configs/minilm.yaml --data runs/my/pairs --out runs/my --minutes 10 --resume",
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="pairs of jobs/encode.py, or hypotheses of jobs/hypotheses.py"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for checkpoint/, last/ and training.png")
    parser.add_argument("--minutes", type=float, metavar="M", help="time budget of training; the schedule fits it")
    parser.add_argument("--workers", type=int, metavar="N", help="training processes")
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR if there is one")
    arguments = parser.parse_args(argv)
    flags = {"training.minutes": arguments.minutes, "training.workers": arguments.workers}
    config = config_from(arguments, [f"{key}={value}" for key, value in flags.items() if value is not None])
    data, out = place(arguments.data, "--data"), place(arguments.out)
    announce(config, "train", data=shown(data), out=shown(out))
    try:
        with staged(out, inputs=[data], owned=is_of_a_run, every=WRITE_BACK_S), ray_session(out, inputs=[data]):
            record = train(config, data, out, arguments.resume)
    except KeyboardInterrupt:
        print("stopped; to go on from the last save, run the same command again with --resume", file=sys.stderr)
        raise SystemExit(130) from None
    accuracy = record["last"]["token_accuracy"]
    print(f"{record['steps']:,} steps in {record['seconds']:.0f} s, {record['samples_per_second']:,} samples/s")
    generation = OBJECTIVES[config.model.kind].generation
    print(f"last validation: {accuracy:.1%} of tokens {generation}; best in {shown(out / 'checkpoint')}")
    if config.model.corrector:
        use = f"--corrector {shown(out / 'checkpoint')} --refine-steps 5 --vectors FILE --out recovered.parquet"
        print(f"next: embinv invert --checkpoint INVERTER {use}")
    else:
        where = f"--checkpoint {shown(out / 'checkpoint')} --data {shown(data)} --out {shown(out)}"
        print(f"next: python jobs/evaluate.py {where}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
