"""One GPU, a number of minutes, an inverter: encodes texts, trains, keeps a checkpoint and measures it.

On the library alone, so neither Ray nor DeepSpeed need be installed. The last line is one JSON object, which also
lies in OUT/result.json: after training, and again after the evaluation.

    python benchmarks/gpu_train.py --texts english.parquet --out runs/gpu --minutes 10
    python benchmarks/gpu_train.py --texts notes.txt --out runs/tiny --device cpu --size tiny --minutes 1
    python benchmarks/gpu_train.py --data runs/gpu/pairs --out runs/again --minutes 10 --batch 2048
    embinv invert --checkpoint runs/gpu/checkpoint --text "Dr. Weber moved the appointment to May 4."

How long it takes: loading libraries and encoding the texts (once: pairs are kept in OUT/pairs and taken from there the
next time, if they are of the same texts and settings); finding a batch that fits, and compiling (a minute on a GPU);
the minutes, validations included; and the evaluation on held-out texts. All but the minutes may come to as much again:
where a command may run for ten minutes in all, give --minutes 5.
"""

import argparse
import gc
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import torch

from benchmarks.kept_pairs import are_kept, keep_pairs, source_of
from benchmarks.loops import CONFIG, start_ours
from benchmarks.pairs import encode_pairs
from embinv.checkpoint import CheckpointConfig, save_checkpoint
from embinv.config import Config, load_config
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import PairsRecipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.base import open_encoder
from embinv.evaluation.evaluate import evaluate
from embinv.inverter import load_inverter
from embinv.models.build import new_model
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.inverter_model import count_parameters
from embinv.models.settings import SIZES
from embinv.spaces.moments import moments_of
from embinv.training.flops import device_peak, flops_per_sample, largest_matmul
from embinv.training.loop import Progress, RunState, run
from embinv.training.precision import resolve_precision
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds
from jobs.arguments import write_json
from jobs.batch_size import resolved

RESULT, EVALUATION = "result.json", "evaluation.json"
TABLES = ("examples", "definitions", "languages", "sweep", "remasking", "by_strategy_and_language")  # not in the line
DEEPSPEEDS = {"zero_stage": 0, "offload_optimizer": "none", "offload_parameters": "none", "workers": 1}
"""Settings that need DeepSpeed or Ray, and what they must be without."""


@dataclass(frozen=True)
class Run:
    """What is trained, on what, and where it goes."""

    config: Config
    recipe: PairsRecipe
    tokenizer: TextTokenizer
    data: Path
    out: Path


@dataclass(frozen=True)
class Splits:
    """All that is read of the pairs, with the tokenizer's ids."""

    training: Pairs
    validation: Pairs
    test: Pairs


def say(line: str) -> None:
    """Progress goes to stderr, since stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


def make_pairs(run: Run, texts: Path | None, rows: int | None) -> dict[str, Any]:
    """Encodes the texts into `run.data`, unless pairs of this recipe and of these texts lie there.

    Raises:
        ValueError: other pairs lie there, or there is nothing to encode.
    """
    source = None if texts is None else source_of(texts, rows, run.config)
    if are_kept(run.data, run.recipe, source):
        open_encoder(run.config.encoder, run.config.training.device, run.config.encoding)  # the evaluation needs it
        return {"encode_texts_per_second": None, "encode_seconds": None}
    if texts is None or source is None:
        raise ValueError(f"{run.data} holds no whole pairs; name texts to make them of: --texts FILE")
    began = time.monotonic()
    splits, rate = encode_pairs(run.config, run.tokenizer, texts, rows, say)
    keep_pairs(run.data, run.recipe, source, splits)
    return {"encode_texts_per_second": round(rate, 1), "encode_seconds": round(time.monotonic() - began, 1)}


def read_splits(run: Run) -> Splits:
    """Reads every split before a minute is spent on training.

    Raises:
        ValueError: one is empty, or holds out too few texts for a figure.
    """
    training, evaluation = run.config.training, run.config.evaluation
    test = read_pairs(run.data, "test").sample(evaluation.rows, evaluation.seed)
    if len(test) < 2:
        raise ValueError(
            f"{run.data}: split=test holds one text, a figure needs two; give more texts or raise data.test"
        )
    validation = read_pairs(run.data, "validation").sample(training.validation_rows, training.seed)
    return Splits(read_pairs(run.data, "train"), validation, test)


def train(given: Run, splits: Splits) -> dict[str, Any]:
    """Trains for the config's minutes and keeps the best average of the weights in OUT/checkpoint.

    Returns:
        What was measured. `error` says what ended the training before its time, such as a loss that is not finite;
        `kept_step` is null where nothing was kept until then.

    Raises:
        ValueError: nothing could be trained: memory or training split are too small for a batch.
    """
    config, recipe = given.config, given.recipe
    vocabulary = Vocabulary.whole(recipe.vocab_size)
    if config.model.trim_vocabulary:
        always = (recipe.eos_id, recipe.pad_id)
        vocabulary = Vocabulary.of(splits.training.token_ids, recipe.vocab_size, always, given.tokenizer.unknown_id)
    training, validation = splits.training.renumbered(vocabulary), splits.validation.renumbered(vocabulary)
    moments = moments_of(training.embeddings)
    statistics, space = moments.statistics(), moments.shape()

    precision = resolve_precision(config.training.precision, config.training.device)
    settings = config.training.model_copy(update={"precision": precision})
    torch.manual_seed(settings.seed)
    ends = vocabulary.ends(recipe.eos_id, recipe.pad_id)
    network = new_model(config.model, vocabulary, recipe.encoder.dim, recipe.seq_len, ends, recipe.tokenizer_hash)
    settings = resolved(settings, network, len(training))
    engine, ema = start_ours(network, settings)
    average = ema.model
    assert isinstance(average, MaskedDenoiser)
    flops, shape = flops_per_sample(average), largest_matmul(average, settings.texts_per_step)
    peak = device_peak(engine.device, precision, shape)  # what it allocates is not the training's
    _forget_memory(settings.device)
    ids = TokenIds(vocabulary.size, *ends, vocabulary.other_id)
    state, speeds, sizes = RunState(), [], count_parameters(average)
    kept, error = None, None
    say(f"{len(training):,} texts to learn from, {vocabulary.size:,} tokens, {sizes['total']:,} parameters")
    say(f"{settings.minutes:g} minutes in steps of {settings.texts_per_step:,} texts")
    try:
        for event in run(engine, ema, training, validation, ids, settings, state):
            if isinstance(event, Progress):
                speeds.append(event.samples_per_second)
                say(f"step {event.step:>6}  {event.share:>4.0%}  loss {event.loss:.3f}  {speeds[-1]:,.0f} samples/s")
                continue
            row = event.figures.as_row()
            say(f"step {state.step:>6}  validation: {row['token_accuracy']:.1%} of tokens from a full mask")
            if event.best:
                best = {
                    **_so_far(state, settings.texts_per_step),
                    **{"parameters": sizes["total"], "parameters_non_embedding": sizes["non_embedding"]},
                    **{f"validation_{name}": round(value, 4) for name, value in row.items()},
                }
                described = CheckpointConfig(
                    name=config.name, model=average.config, pairs=recipe, training=best, statistics=statistics
                )
                save_checkpoint(given.out / "checkpoint", average, described, given.tokenizer, vocabulary, space)
                kept = state.step
    except (ValueError, RuntimeError, KeyboardInterrupt) as stop:  # what was trained until then is told all the same
        error = _why(stop, settings)
        if state.step == 0:
            if isinstance(stop, torch.OutOfMemoryError):
                raise ValueError(error) from stop
            raise

    steady = median(speeds) if speeds else None
    return {
        "precision": precision,
        "batch": settings.texts_per_step,
        "vocabulary": vocabulary.size,
        "training_texts": len(training),
        "parameters": sizes["total"],
        "parameters_non_embedding": sizes["non_embedding"],
        **_so_far(state, settings.texts_per_step),
        "samples_per_second": steady and round(steady, 1),
        "samples_per_second_with_validations": _so_far(state, settings.texts_per_step)["samples_per_second"],
        "tokens_per_second": steady and round(steady * recipe.seq_len, 1),
        "teraflops_per_second": steady and round(steady * flops / 1e12, 4),
        "mfu": steady and round(steady * flops / peak.flops_per_second, 4),
        "mfu_of": f"{peak.flops_per_second / 1e12:.4g} TFLOP/s: {peak.source}",
        "peak_memory_gib": _peak_memory(settings.device),
        "kept_step": kept,
        "error": error,
    }


def _so_far(state: RunState, batch: int) -> dict[str, Any]:
    """What a checkpoint says of the run that it comes from."""
    samples = state.step * batch
    return {
        "steps": state.step,
        "samples": samples,
        "seconds": round(state.seconds, 1),
        "samples_per_second": round(samples / state.seconds, 1) if state.seconds else None,
    }


def _why(stop: BaseException, settings: TrainingSettings) -> str:
    """What ended the training, with its fix where one is known."""
    if isinstance(stop, torch.OutOfMemoryError):
        return f"the GPU's memory does not hold a step of {settings.texts_per_step:,} texts; lower --batch"
    return "stopped by hand" if isinstance(stop, KeyboardInterrupt) else str(stop)


def _forget_memory(device: str) -> None:
    """Lets the highest count of a GPU's memory begin here, with what is still in use."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(device: str) -> float | None:
    """GiB that PyTorch had allocated on a GPU at most; on a CPU nobody counts what is training's."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device == "cuda" else None


def measure(given: Run, splits: Splits) -> dict[str, Any]:
    """Evaluates the checkpoint as jobs/evaluate.py does; the whole report goes to OUT/evaluation.json."""
    settings, device = given.config.evaluation, given.config.training.device
    evaluation = evaluate(
        load_inverter(given.out / "checkpoint", device=device),
        splits.test,
        splits.training,
        open_encoder(given.config.encoder, device, given.config.encoding),
        settings,
        on_progress=say,
    )
    report = evaluation.report
    write_json(given.out / EVALUATION, report)
    for example in report["examples"]:
        say(f"  {example['original']}\n> {example['recovered']}")
    return {name: value for name, value in report.items() if name not in TABLES}


def configured(arguments: argparse.Namespace) -> Config:
    """The encoder's config with what the flags say.

    Raises:
        ValueError: the file or a setting does not validate, or cannot be had without Ray and DeepSpeed.
    """
    flags = {
        "data.seq_len": arguments.seq_len,
        "model.size": arguments.size,
        "encoding.device": arguments.device,
        "training.device": arguments.device,
        "training.batch_size": arguments.batch or "null",
        "training.minutes": arguments.minutes,
        "training.max_steps": 10**9,
        **{f"training.{name}": value for name, value in DEEPSPEEDS.items()},
    }
    given = [f"{name}={value}" for name, value in flags.items() if value is not None]
    config = load_config(arguments.encoder_config, [*given, *arguments.overrides])
    without = "this script trains without Ray and DeepSpeed; use jobs/train.py, or"
    for name, value in DEEPSPEEDS.items():
        if (found := getattr(config.training, name)) != value:
            raise ValueError(f"training.{name} {found}: {without} leave it at {value}")
    if config.training.precision == "bfloat16":
        raise ValueError(f"training.precision bfloat16: {without} set bfloat16-mixed or float32")
    if config.training.minutes is None:
        raise ValueError("training.minutes null: a run here ends by its minutes; give --minutes")
    return config


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode, train, evaluate; the result's one object, whose `error` says what went wrong once training had begun.

    Raises:
        ValueError: something given cannot be used; the message says what to do.
    """
    config = configured(arguments)
    device = config.training.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("this PyTorch sees no CUDA device; give --device cpu, with --size tiny or small")
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = config.open_tokenizer()
    given = Run(config, config.pairs_recipe(tokenizer), tokenizer, arguments.data or out / "pairs", out)
    encoded = make_pairs(given, arguments.texts, arguments.rows)
    splits = read_splits(given)
    for of_another_run in (RESULT, EVALUATION):
        (out / of_another_run).unlink(missing_ok=True)
    trained = train(given, splits)
    result = {
        "benchmark": "gpu_train",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "encoder": config.encoder.model,
        "size": config.model.size,
        "seq_len": config.data.seq_len,
        "optimizer": config.training.optimizer,
        "compiled": config.training.compiles,
        "minutes": config.training.minutes,
        **encoded,
        **trained,
        "evaluation": None,
        "checkpoint": None if trained["kept_step"] is None else str(out / "checkpoint"),
    }
    write_json(out / RESULT, result)
    if result["error"] is None:
        try:
            result["evaluation"] = measure(given, splits)
        except (Exception, KeyboardInterrupt) as error:  # whatever it is, the figures of training must not go with it
            result["error"] = f"evaluation: {type(error).__name__}: {error}"
        write_json(out / RESULT, result)
    return result


def command_line() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, metavar="FILE", help="Parquet with a text column, or one text a line")
    parser.add_argument("--rows", type=int, metavar="N", help="texts at most (default: all)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="pairs to train on, or to make (default: OUT/pairs)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all that it makes")
    parser.add_argument(
        "--encoder-config", type=Path, default=CONFIG, metavar="C", help="YAML of one encoder (default: minilm.yaml)"
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, metavar="M", help="of training (default: 10); what comes on top is above"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", default="base", choices=SIZES)
    parser.add_argument("--batch", type=int, help="texts of a step (default: found by trial on a GPU, 64 on a CPU)")
    parser.add_argument("--seq-len", type=int, metavar="L", help="default: the config's")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the config"
    )
    return parser


def main() -> None:
    """Entry point; a user's mistake ends it with one sentence and exit code 2, a run gone wrong with 1 and its JSON."""
    arguments = command_line().parse_args()
    try:
        result = run_all(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps(result))
    if result["error"] is not None:
        print(f"error: {result['error']}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
