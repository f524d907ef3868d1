"""One GPU, a number of minutes, an inverter: encodes texts, trains, keeps a checkpoint and measures it.

On the library alone, so neither Ray nor DeepSpeed need be installed. The last line is one JSON object.

    python benchmarks/gpu_train.py --texts english.parquet --out runs/gpu --minutes 10
    python benchmarks/gpu_train.py --texts notes.txt --out runs/tiny --device cpu --size tiny --minutes 1
    python benchmarks/gpu_train.py --data runs/gpu/pairs --out runs/again --minutes 10 --batch 2048
    embinv invert --checkpoint runs/gpu/checkpoint --text "Dr. Weber moved the appointment to May 4."

Pairs are kept in OUT/pairs, laid out as jobs/encode.py does, and taken from there the next time. The minutes are those
of training with its validations; encoding and the evaluation on held-out texts come on top.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import numpy as np
import torch

from benchmarks.head_memory import memory_bytes
from benchmarks.loops import CONFIG, start_ours
from benchmarks.pairs import encode_pairs, write_pairs
from embinv.checkpoint import CheckpointConfig, embedding_statistics, save_checkpoint
from embinv.config import Config, load_config
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import PairsRecipe, read_recipe, require_same_recipe
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.encoders.base import open_encoder
from embinv.evaluation import evaluate
from embinv.inverter import load_inverter
from embinv.models.build import new_denoiser
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.mdlm import count_parameters
from embinv.models.settings import SIZES
from embinv.training.flops import device_peak, flops_per_sample, largest_matmul
from embinv.training.loop import Progress, RunState, TokenIds, run
from embinv.training.precision import resolve_precision

BATCHES = {"cuda": 1024, "cpu": 64}


@dataclass(frozen=True)
class Run:
    """What is trained, on what, and where it goes."""

    config: Config
    recipe: PairsRecipe
    tokenizer: TextTokenizer
    data: Path
    out: Path


def say(line: str) -> None:
    """Progress goes to stderr, since stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


def make_pairs(run: Run, texts: Path | None, rows: int | None) -> dict[str, Any]:
    """Encodes the texts into `run.data`, unless pairs of this recipe lie there.

    Raises:
        ValueError: pairs of another recipe lie there, or there is nothing to encode.
    """
    if any(run.data.glob("split=train/*.parquet")):
        require_same_recipe(read_recipe(run.data), run.recipe, run.data, "the config")
        return {"encode_texts_per_second": None, "encode_seconds": None}
    if texts is None:
        raise ValueError(f"{run.data} holds no pairs; name texts to make them of: --texts FILE")
    began = time.monotonic()
    splits, rate = encode_pairs(run.config, run.tokenizer, texts, rows, say)
    write_pairs(run.data, run.recipe, splits)
    return {"encode_texts_per_second": round(rate, 1), "encode_seconds": round(time.monotonic() - began, 1)}


def train(given: Run) -> dict[str, Any]:
    """Trains for the config's minutes and keeps the best average of the weights in OUT/checkpoint.

    Raises:
        ValueError: a split is empty, or smaller than a batch.
    """
    config, recipe, settings = given.config, given.recipe, given.config.training
    training = read_pairs(given.data, "train")
    validation = read_pairs(given.data, "validation").sample(settings.validation_rows, settings.seed)
    statistics = embedding_statistics(training.embeddings)
    vocabulary = Vocabulary.whole(recipe.vocab_size)
    if config.model.trim_vocabulary:
        ends = (recipe.eos_id, recipe.pad_id)
        vocabulary = Vocabulary.of(training.token_ids, recipe.vocab_size, ends, given.tokenizer.unknown_id)
    training, validation = training.renumbered(vocabulary), validation.renumbered(vocabulary)

    torch.manual_seed(settings.seed)
    network = new_denoiser(config.model, vocabulary, recipe.encoder.dim, recipe.seq_len, recipe.tokenizer_hash)
    engine, ema = start_ours(network, settings)
    average = ema.model
    assert isinstance(average, MaskedDenoiser)
    eos_id, pad_id = vocabulary.compact(np.asarray([recipe.eos_id, recipe.pad_id])).tolist()
    state, speeds, best, sizes = RunState(), [], {}, count_parameters(average)
    say(f"{len(training):,} texts to learn from, {vocabulary.size:,} tokens, {sizes['total']:,} parameters")
    for event in run(engine, ema, training, validation, TokenIds(vocabulary.size, eos_id, pad_id), settings, state):
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
            save_checkpoint(given.out / "checkpoint", average, described, given.tokenizer, vocabulary)

    steady = median(speeds[1:] or speeds)  # compiling is in the first
    precision = resolve_precision(settings.precision, settings.device)
    flops, shape = flops_per_sample(average), largest_matmul(average, settings.texts_per_step)
    memory = memory_bytes(settings.device, highest=True)
    peak = device_peak(engine.device, precision, shape)
    return {
        "precision": precision,
        "vocabulary": vocabulary.size,
        "training_texts": len(training),
        "parameters": sizes["total"],
        "parameters_non_embedding": sizes["non_embedding"],
        **_so_far(state, settings.texts_per_step),
        "samples_per_second": round(steady, 1),
        "samples_per_second_with_validations": round(state.step * settings.texts_per_step / state.seconds, 1),
        "tokens_per_second": round(steady * recipe.seq_len, 1),
        "teraflops_per_second": round(steady * flops / 1e12, 4),
        "mfu": round(steady * flops / peak.flops_per_second, 4),
        "mfu_of": f"{peak.flops_per_second / 1e12:.4g} TFLOP/s: {peak.source}",
        "peak_memory_gib": round(memory / 2**30, 2),
        "kept_step": best["steps"],
    }


def _so_far(state: RunState, batch: int) -> dict[str, Any]:
    """What a checkpoint says of the run that it comes from."""
    samples = state.step * batch
    return {
        "steps": state.step,
        "samples": samples,
        "seconds": round(state.seconds, 1),
        "samples_per_second": round(samples / state.seconds, 1),
    }


def measure(given: Run) -> dict[str, Any]:
    """Evaluates the checkpoint as jobs/evaluate.py does; the whole report goes to OUT/evaluation.json."""
    settings, device = given.config.evaluation, given.config.training.device
    test: Pairs = read_pairs(given.data, "test").sample(settings.rows, settings.seed)
    report = evaluate(
        load_inverter(given.out / "checkpoint", device=device),
        test,
        read_pairs(given.data, "train"),
        open_encoder(given.config.encoder, device, given.config.encoding),
        settings.strategy,
        settings.steps,
        settings.examples,
        settings.seed,
        say,
    )
    (given.out / "evaluation.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for example in report["examples"]:
        say(f"  {example['original']}\n> {example['recovered']}")
    return {name: value for name, value in report.items() if name not in ("examples", "definitions", "languages")}


def configured(arguments: argparse.Namespace) -> Config:
    """The encoder's config with what the flags say.

    Raises:
        ValueError: the file or a setting does not validate.
    """
    flags = {
        "data.seq_len": arguments.seq_len,
        "model.size": arguments.size,
        "encoding.device": arguments.device,
        "training.device": arguments.device,
        "training.batch_size": arguments.batch or BATCHES[arguments.device],
        "training.minutes": arguments.minutes,
        "training.max_steps": 10**9,
        "training.workers": 1,
        "training.zero_stage": 0,
    }
    given = [f"{name}={value}" for name, value in flags.items() if value is not None]
    return load_config(arguments.encoder_config, [*given, *arguments.overrides])


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode, train, evaluate; the result's one object.

    Raises:
        ValueError: something given cannot be used; the message says what to do.
    """
    config = configured(arguments)
    device = config.training.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("this PyTorch sees no CUDA device; give --device cpu, with --size tiny or small")
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = config.open_tokenizer()
    given = Run(config, config.pairs_recipe(tokenizer), tokenizer, arguments.data or out / "pairs", out)
    encoded = make_pairs(given, arguments.texts, arguments.rows)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trained = train(given)
    return {
        "benchmark": "gpu_train",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "encoder": config.encoder.model,
        "size": config.model.size,
        "batch": config.training.batch_size,
        "seq_len": config.data.seq_len,
        "optimizer": config.training.optimizer,
        "compiled": config.training.compiles,
        "minutes": config.training.minutes,
        **encoded,
        **trained,
        "evaluation": measure(given),
        "checkpoint": str(out / "checkpoint"),
    }


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
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="of training (default: 10)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", default="base", choices=SIZES)
    parser.add_argument("--batch", type=int, help="texts of a step (default: 1024, on a CPU 64)")
    parser.add_argument("--seq-len", type=int, metavar="L", help="default: the config's")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the config"
    )
    return parser


def main() -> None:
    """Entry point; a user's mistake ends it with one sentence and exit code 2."""
    arguments = command_line().parse_args()
    try:
        result = run_all(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps(result))


if __name__ == "__main__":
    main()
