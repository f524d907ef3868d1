"""pairs -> an inverter: Ray Train starts the workers, DeepSpeed moves the weights, the loop is embinv's.

The run's state lies under DIR/state, one folder a save; a worker that dies is replaced and goes on from the last one,
and so does `--resume`. `DIR/checkpoint` holds the best EMA weights, `DIR/last` the newest.
"""

import hashlib
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import load_file, save_file

from embinv.checkpoint import CheckpointConfig, embedding_statistics, save_checkpoint
from embinv.config import Config
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import PairsRecipe, read_recipe, require_same_recipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.mdlm import ConditionalMDLM, count_parameters
from embinv.training.ema import EMA
from embinv.training.loop import Progress, RunState, TokenIds, Validated, run
from embinv.training.plot import draw_training
from embinv.training.precision import resolve_precision
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
from jobs.deepspeed_engine import DeepSpeedEngine
from jobs.encode import recipe_of
from jobs.follow import followed
from jobs.session import ray_session

RUN_FILE = "_run.json"
PROGRESS_FILE = "progress.jsonl"
LOG_FILE = "train.log"


@dataclass(frozen=True)
class Task:
    """What a worker is told; plain values, so that it travels."""

    config: dict[str, Any]
    data: str
    out: str
    threads: int


class Recorder:
    """What rank 0 leaves behind while training: progress lines, TensorBoard events, plot and checkpoint folders."""

    def __init__(
        self,
        task: Task,
        config: Config,
        recipe: PairsRecipe,
        tokenizer: TextTokenizer,
        vocabulary: Vocabulary,
        pairs: Pairs,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.out = Path(task.out)
        self.config, self.recipe, self.tokenizer, self.vocabulary = config, recipe, tokenizer, vocabulary
        self.statistics = embedding_statistics(pairs.embeddings)
        self.board = SummaryWriter(str(self.out / "tensorboard"))
        self.progress_path = self.out / PROGRESS_FILE

    def say(self, line: str) -> None:
        """Adds a line to the run's log, which the driver shows."""
        with (self.out / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def progress(self, event: Progress) -> None:
        """One line to read, one to plot."""
        left = event.seconds * (1 / event.share - 1) if event.share > 0 else 0.0
        self.say(
            f"step {event.step:>6}  {event.share:>4.0%}  loss {event.loss:.3f}  rate {event.rate:.2f}  "
            f"{event.samples_per_second:,.0f} samples/s  {left:,.0f} s left"
        )
        row = {"step": event.step, "seconds": round(event.seconds, 2), "loss": event.loss, "rate": event.rate}
        with self.progress_path.open("a", encoding="utf-8") as file:
            file.write(dumps(row) + "\n")
        self.board.add_scalar("train/loss", event.loss, event.step)
        self.board.add_scalar("train/rate", event.rate, event.step)
        self.board.add_scalar("train/samples_per_second", event.samples_per_second, event.step)

    def validated(self, event: Validated, ema: EMA, state: RunState) -> None:
        """Saves the EMA weights as `last`, and as `checkpoint` if they are the best so far."""
        figures = event.figures
        for name, value in figures.as_row().items():
            self.board.add_scalar(f"validation/{name}", value, state.step)
        self.board.flush()
        self.say(
            f"step {state.step:>6}  validation: {figures.token_accuracy:.1%} of tokens from a full mask, "
            f"{figures.exact_match:.1%} whole texts, NELBO {figures.nelbo:.3f}{'  (best)' if event.best else ''}"
        )
        model = ema.model
        assert isinstance(model, ConditionalMDLM)
        config = CheckpointConfig(
            name=self.config.name,
            model=model.config,
            pairs=self.recipe,
            training=self._summary(model, state, figures.as_row(), figures.n),
            statistics=self.statistics,
        )
        for name in ("last", "checkpoint") if event.best else ("last",):
            save_checkpoint(self.out / name, model, config, self.tokenizer, self.vocabulary)
        rows = [loads(line) for line in self.progress_path.read_text(encoding="utf-8").splitlines()]
        draw_training(self.out / "training.png", rows, state.history, f"{self.config.name}: {state.step:,} steps")

    def _summary(self, model: ConditionalMDLM, state: RunState, row: dict[str, float], n: int) -> dict[str, Any]:
        samples = state.step * self.config.training.batch_size
        return {
            "steps": state.step,
            "samples": samples,
            "seconds": round(state.seconds, 1),
            "samples_per_second": round(samples / state.seconds, 1),
            "parameters": count_parameters(model)["total"],
            "parameters_non_embedding": count_parameters(model)["non_embedding"],
            "validation_texts": n,
            "validation_steps": self.config.training.validation_steps,
            **{f"validation_{name}": round(value, 4) for name, value in row.items()},
        }


def train_worker(task: dict[str, Any]) -> None:
    """Runs on every worker."""
    _train(Task(**task))


def _train(task: Task) -> None:
    torch.set_num_threads(task.threads)
    config = Config.model_validate(task.config)
    precision = resolve_precision(config.training.precision, config.training.device)
    settings = config.training.model_copy(update={"precision": precision})
    recipe = read_recipe(task.data)
    tokenizer = TextTokenizer(config.tokenizer, trust_remote_code=config.encoder.trust_remote_code)
    training = read_pairs(task.data, "train")
    validation = read_pairs(task.data, "validation").sample(settings.validation_rows, settings.seed)

    vocabulary = _vocabulary(config, recipe, training, tokenizer)
    training, validation = training.renumbered(vocabulary), validation.renumbered(vocabulary)

    torch.manual_seed(settings.seed)  # the same start on every worker
    model = ConditionalMDLM(config.model.resolve(vocabulary.size, recipe.encoder.dim, recipe.seq_len))
    ema = EMA(model, settings.ema_decay)
    engine = DeepSpeedEngine(model, settings)
    ema.model.to(engine.device)
    state = RunState()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = restore(Path(folder), engine, ema)
    recorder = None
    if engine.rank == 0:
        recorder = Recorder(task, config, recipe, tokenizer, vocabulary, training)
        _forget_after(recorder.progress_path, state.step)
        known = f"{vocabulary.size:,} of {vocabulary.full_size:,} tokens"
        where = f"going on from step {state.step:,}" if state.step else f"{len(training):,} texts to learn from"
        counts = count_parameters(ema.model)
        recorder.say(
            f"{where}; {known}; {counts['total']:,} parameters, {counts['non_embedding']:,} of them not in token "
            f"embedding or head; {engine.world} worker(s), ZeRO-{settings.zero_stage}, {settings.precision}, "
            f"{task.threads} thread(s)"
        )
    eos_id, pad_id = vocabulary.compact(np.asarray([recipe.eos_id, recipe.pad_id])).tolist()
    ids = TokenIds(model.config.mask_id, eos_id, pad_id)
    for event in run(engine, ema, training, validation, ids, settings, state):
        if isinstance(event, Progress):
            if recorder is not None:
                recorder.progress(event)
            continue
        if recorder is not None:
            recorder.validated(event, ema, state)
        with tempfile.TemporaryDirectory() as folder:
            keep(Path(folder), engine, ema, state)
            metrics = {"step": state.step, "seconds": state.seconds, **event.figures.as_row()}
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def _vocabulary(config: Config, recipe: PairsRecipe, training: Pairs, tokenizer: TextTokenizer) -> Vocabulary:
    """What the model has to know: the same on every worker, since it follows from the training pairs alone."""
    if not config.model.trim_vocabulary:
        return Vocabulary.whole(recipe.vocab_size)
    always = (recipe.eos_id, recipe.pad_id)
    return Vocabulary.of(training.token_ids, recipe.vocab_size, always, tokenizer.unknown_id)


def keep(folder: Path, engine: DeepSpeedEngine, ema: EMA, state: RunState) -> None:
    """Writes this worker's share of the run's state."""
    engine.save(folder)
    if engine.rank == 0:
        save_file(
            {name: p.detach().contiguous() for name, p in ema.model.named_parameters()}, folder / "ema.safetensors"
        )
        write_json(folder / "run.json", {**state.as_dict(), "ema_updates": ema.updates})


def restore(folder: Path, engine: DeepSpeedEngine, ema: EMA) -> RunState:
    """Reads what `keep` wrote."""
    engine.load(folder)
    tree = loads((folder / "run.json").read_text(encoding="utf-8"))
    ema.updates = tree.pop("ema_updates")
    ema.model.load_state_dict(load_file(folder / "ema.safetensors", device=str(engine.device)), strict=True)
    return RunState(**tree)


def _forget_after(progress: Path, step: int) -> None:
    """Drops the progress lines of steps that a crash took back."""
    lines = progress.read_text(encoding="utf-8").splitlines() if progress.is_file() else []
    kept = [line for line in lines if loads(line)["step"] <= step]
    progress.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


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
