"""What training is worth, against the reference's loop, its own machine, and its own loop without Ray.

    python benchmarks/train.py speedup_vs_reference_loop   samples/s over the reference's loop, equal in size
    python benchmarks/train.py quality_at_equal_time       tokens recovered over the reference's, in equal minutes
    python benchmarks/train.py utilisation                 FLOP/s of a step over those of a plain product of matrices
    python benchmarks/train.py ddp_efficiency              two workers over twice one, and one over the bare loop
    python benchmarks/train.py head_memory                 the head's step over a dense head's, at 152,000 tokens
    python benchmarks/train.py all

Each side runs in a fresh process, the sides take turns, and medians count; starting up is left out. Recipe and widths
are those of configs/minilm.yaml, and `--set section.key=value` changes them. Each command ends with one JSON line,
which says of each measure on which device and with how many threads it was made. `all` goes on past a measure that
fails, says so in its line, and ends with exit code 1.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import psutil

from benchmarks.english import english_pairs, is_real_text
from benchmarks.head_memory import HEADS, peak_bytes
from benchmarks.loops import (
    MINILM_VOCABULARY,
    Case,
    Timed,
    make_case,
    model_settings,
    our_rate,
    reference_rate,
    training_settings,
)
from benchmarks.processes import alternating, at_once, in_a_fresh_process, in_turns
from benchmarks.quality import QualityCase, compare, middle, sides_of
from benchmarks.ray_training import job_rate, write_random_pairs
from benchmarks.utilisation import utilisation_of
from embinv.models.settings import SIZES
from embinv.training.precision import resolve_precision

TRIMMED = 6_000
BATCH = 128  # the reference's
HEAD_POSITIONS = 512 * 32 // 2  # half of a batch of 512 texts is hidden
HEAD_HIDDEN = 768
HEAD_VOCABULARY = 152_000
STEP_OF_A_BASE = {"batch_size": 1024, "gradient_accumulation": 8}  # utilisation: the step that configs/ give that size
DENSE_COPIES = 3.3  # logits, their softmax and a gradient, all at once, and something to spare


def case_of(arguments: argparse.Namespace, size: str, vocabulary: int, **changes: Any) -> Case:
    """A loop to time, as the command line has it."""
    wanted = {"batch_size": arguments.batch or BATCH, "device": arguments.device, "workers": 1} | changes
    return make_case(
        size, vocabulary, arguments.seq_len or 32, arguments.overrides, arguments.threads, arguments.seconds, **wanted
    )


def made_on(arguments: argparse.Namespace) -> dict[str, Any]:
    """The machine's part that a measure used, where it used what the flags say."""
    return {"device": arguments.device, "threads": arguments.threads}


def speedup_vs_reference_loop(arguments: argparse.Namespace) -> dict[str, Any]:
    """Samples/s of our loop over the reference's; the least of all sizes and vocabularies is the figure.

    The reference computes in float32 on a CPU, as it was published. Where ours does not, ours in float32 is timed too.
    """
    settings = training_settings(arguments.overrides)
    own = settings.optimizer
    variants: dict[str, dict[str, Any]] = {optimizer: {"optimizer": optimizer} for optimizer in ("muon", "adamw")}
    if arguments.device == "cpu" and resolve_precision(settings.precision, "cpu") != "float32":
        variants["float32"] = {"optimizer": own, "precision": "float32"}
    cases = []
    for size in arguments.sizes or ["small", "base"]:
        for vocabulary in arguments.vocabularies or [TRIMMED, MINILM_VOCABULARY]:
            plain = case_of(arguments, size, vocabulary)
            sides: dict[str, tuple[Any, ...]] = {"reference": (reference_rate, plain)}
            for name, changes in variants.items():
                sides[name] = our_rate, case_of(arguments, size, vocabulary, **changes)
            found = in_turns(sides, arguments.repeats or 3)
            cases.append({"size": size, "vocabulary": vocabulary, "batch": plain.training.batch_size, **speeds(found)})
    result = {"speedup_vs_reference_loop": min(case[f"speedup_{own}"] for case in cases), "optimizer": own}
    if "float32" in variants:
        result["speedup_in_float32"] = min(case["speedup_float32"] for case in cases)
    return result | made_on(arguments) | {"seq_len": arguments.seq_len or 32, "cases": cases}


def speeds(found: dict[str, list[Timed]]) -> dict[str, Any]:
    """Each side's median rate, precision and size, and the rates of ours over the reference's."""
    rates = {name: median(timed.samples_per_second for timed in each) for name, each in found.items()}
    ours = {name: rate for name, rate in rates.items() if name != "reference"}
    shown: dict[str, Any] = {f"speedup_{name}": round(rate / rates["reference"], 2) for name, rate in ours.items()}
    for name, (timed, *_) in found.items():
        shown |= {
            f"{name}_samples_per_second": round(rates[name], 1),
            f"{name}_precision": timed.precision,
            f"{name}_parameters": timed.parameters,
        }
    return shown


def quality_at_equal_time(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens recovered from a full mask after equal minutes, over the reference's; the middle one of several seeds."""
    seq_len = arguments.seq_len or 16
    data = (arguments.data or english_pairs(seq_len, arguments.rows)).resolve()
    size = (arguments.sizes or ["small"])[0]
    changes = {
        "batch_size": arguments.batch or 128,
        "minutes": arguments.minutes,
        "max_steps": 10**9,
        "validations": 1,  # at the end, outside the minutes, as the other side has it
        "early_stop_patience": None,
        "device": arguments.device,
        "workers": 1,
    }
    runs = []
    for seed in range(arguments.repeats or 1):
        case = QualityCase(
            data=data,
            model=model_settings(arguments.overrides, size),
            training=training_settings(arguments.overrides, **changes, seed=seed),
            reference_rate=arguments.reference_rates[0],
            vocabulary=(arguments.vocabularies or [TRIMMED])[0],
            rows=arguments.test_rows,
            steps=arguments.steps,
            threads=arguments.threads,
        )
        found = in_turns(sides_of(case, arguments.reference_rates), 1, first=seed)
        runs.append(compare(case, {name: results[0] for name, results in found.items()}))
    ratios = [result["quality_at_equal_time"] for result in runs]  # in the order of the seeds
    where = {"data": str(data), "real_text": is_real_text(data)}
    return middle(runs) | made_on(arguments) | {"size": size, **where, "ratios": ratios}


def utilisation(arguments: argparse.Namespace) -> dict[str, Any]:
    """FLOP/s of a step over those of a plain product; the last size is the figure."""
    sizes = arguments.sizes or ["small", "base"]
    vocabulary = (arguments.vocabularies or [TRIMMED])[0]
    found = {}
    for size in sizes:
        large = SIZES[size]["hidden"] >= SIZES["base"]["hidden"]
        case = case_of(arguments, size, vocabulary, **(STEP_OF_A_BASE if large and not arguments.batch else {}))
        found[size] = in_a_fresh_process(utilisation_of, case, arguments.repeats or 3)
    return {
        "utilisation": found[sizes[-1]]["utilisation"],
        **made_on(arguments),
        "vocabulary": vocabulary,
        "sizes": found,
    }


def ddp_efficiency(arguments: argparse.Namespace) -> dict[str, Any]:
    """Two workers of one thread over twice one, with the same batch each; and one over the bare loop (ray_overhead).

    `side_by_side` is two bare loops at once, which have nothing to tell each other, over twice one: what two cores of
    this machine give together, and the most that two workers could come to.
    """
    if (os.cpu_count() or 1) < 2:
        raise ValueError("ddp_efficiency runs two workers of one thread each; it needs a machine with two cores")
    size = (arguments.sizes or ["small"])[0]
    arguments = argparse.Namespace(**vars(arguments) | {"threads": 1, "device": "cpu"})
    case = case_of(arguments, size, (arguments.vocabularies or [TRIMMED])[0])
    workers = {"bare": 0, "bare_two": 0, "one": 1, "two": 2}
    rates: dict[str, list[float]] = {name: [] for name in workers}
    with tempfile.TemporaryDirectory(prefix="train") as scratch:
        data = Path(scratch) / "pairs"
        in_a_fresh_process(write_random_pairs, data, case, 2)
        for turn in range(arguments.repeats or 3):
            for name in alternating(workers, turn):
                if not workers[name]:
                    timed = at_once(2 if name == "bare_two" else 1, our_rate, case)
                    rates[name].append(sum(loop.samples_per_second for loop in timed))
                    continue
                out = Path(scratch) / f"{name}-{turn}"
                rates[name].append(job_rate(case, size, data, out, workers[name], arguments.overrides))
    bare, bare_two, one, two = (median(rates[name]) for name in workers)
    return {
        "ddp_efficiency": round(two / (2 * one), 3),
        "ray_overhead": round(one / bare, 3),
        "side_by_side": round(bare_two / (2 * bare), 3),
        "two_workers_samples_per_second": round(two, 1),
        "one_worker_samples_per_second": round(one, 1),
        "bare_samples_per_second": round(bare, 1),
        "two_bare_samples_per_second": round(bare_two, 1),
        **made_on(arguments),  # of each worker
        "size": size,
        "batch_a_worker": case.training.batch_size,
    }


def head_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of the head's step over a dense head's; the worse of float32 and bfloat16-mixed is the figure."""
    needed = DENSE_COPIES * 4 * arguments.positions * HEAD_VOCABULARY
    if arguments.device == "cpu" and psutil.virtual_memory().available < needed:
        raise ValueError(f"a dense head needs {needed / 2**30:.0f} GiB of free memory here; lower --positions")
    shape, machine = (arguments.positions, HEAD_HIDDEN, HEAD_VOCABULARY), (arguments.device, arguments.threads)
    peaks = {
        precision: {
            head: in_a_fresh_process(peak_bytes, head, *shape, precision == "bfloat16-mixed", *machine)
            for head in HEADS
        }
        for precision in ("float32", "bfloat16-mixed")
    }
    ratios = {precision: round(found["fused"] / found["dense"], 3) for precision, found in peaks.items()}
    return {
        "head_memory": max(ratios.values()),
        "ratios": ratios,
        "peak_mb": {
            precision: {head: round(peak / 1e6) for head, peak in found.items()} for precision, found in peaks.items()
        },
        **made_on(arguments),
        "positions": arguments.positions,
        "hidden": HEAD_HIDDEN,
        "vocabulary": HEAD_VOCABULARY,
    }


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "speedup_vs_reference_loop": speedup_vs_reference_loop,
    "quality_at_equal_time": quality_at_equal_time,
    "utilisation": utilisation,
    "ddp_efficiency": ddp_efficiency,
    "head_memory": head_memory,
}
FIGURES = (*MEASURES, "ray_overhead")


def everything(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measures one after the other; each one's line goes to stderr as it comes, an `error` where it failed."""
    figures: dict[str, Any] = {}
    measures: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        try:
            measures[name] = measure(arguments)
        except Exception as error:  # whatever it is, the measures before and after it took an hour
            measures[name] = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(measures[name]), file=sys.stderr, flush=True)
        figures |= {figure: measures[name][figure] for figure in FIGURES if figure in measures[name]}
    return figures | {"measures": measures}


OVERRULED = {
    "model.size": "give --sizes",
    "data.seq_len": "give --seq-len",
    "training.batch_size": "give --batch",
    "training.device": "give --device",
    "training.threads": "give --threads",
    "training.minutes": "give --minutes",
    "training.seed": "quality_at_equal_time takes 0 and on, as many as --repeats says",
    "training.workers": "ddp_efficiency compares one with two",
    "training.validations": "what is timed does not validate",
    "training.validation_rows": "what is timed does not validate",
    "training.validation_steps": "give --steps",
    "training.max_steps": "runs end by time",
    "training.early_stop_patience": "runs end by time",
}
"""Settings that the measures decide themselves, and what to do instead."""


def require_heeded(overrides: list[str]) -> None:
    """Refuses settings that no measure would heed.

    Raises:
        ValueError: naming the first of them and the flag to use.
    """
    for override in overrides:
        key = override.partition("=")[0]
        if key in OVERRULED:
            raise ValueError(f"--set {key} is overruled here; {OVERRULED[key]}")
        if key.partition(".")[0] not in ("model", "training"):
            raise ValueError(f"--set {key} changes nothing here: of the config, only model and training are read")
    training_settings(overrides)


def command_line() -> argparse.ArgumentParser:
    """The flags; what a measure does not read does nothing to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=[*MEASURES, "all"])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="default: small; speed-up and utilisation: and base")
    parser.add_argument("--vocabularies", nargs="+", type=int, metavar="V", help="default: 6000; speed-up: and 30522")
    parser.add_argument("--seq-len", type=int, metavar="L", help="default: 32; quality: 16")
    parser.add_argument(
        "--batch", type=int, help="texts of a step (default: 128, as the reference; utilisation of base: 1024)"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU (default: all)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of timing, for one run of one side")
    parser.add_argument(
        "--repeats", type=int, help="runs of each side (default: 3; quality: 1), with other seeds there"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="quality: of training, for each side")
    parser.add_argument("--data", type=Path, metavar="DIR", help="quality: pairs (default: made of English, and kept)")
    parser.add_argument("--rows", type=int, default=100_000, help="quality: English texts to make pairs of")
    parser.add_argument("--test-rows", type=int, default=1000, help="quality: held-out texts")
    parser.add_argument("--steps", type=int, default=8, help="quality: passes of a generation")
    parser.add_argument(
        "--reference-rates",
        nargs="+",
        type=float,
        default=[1e-3],
        metavar="R",
        help="quality: learning rates of the reference, each for the minutes; its best counts (default: 0.001)",
    )
    parser.add_argument("--positions", type=int, default=HEAD_POSITIONS, help="head_memory: M")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="of the config"
    )
    return parser


def main() -> None:
    """The command line."""
    arguments = command_line().parse_args()
    try:
        require_heeded(arguments.overrides)
        result = (MEASURES | {"all": everything})[arguments.measure](arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(json.dumps({"benchmark": "train", "cores": os.cpu_count()} | result))
    failed = [name for name, found in result.get("measures", {}).items() if "error" in found]
    if failed:
        print(f"error: {', '.join(failed)} failed", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
