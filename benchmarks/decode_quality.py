"""Every way to decode, at every budget, on the same held-out texts: what it recovers and how long it takes."""

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.processes import alternating
from embinv.data.held_out import remove_known
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import read_recipe, require_same_recipe
from embinv.decoding.options import DecodingOptions
from embinv.evaluation.generation import Generation
from embinv.evaluation.reliability import calibrate, calibration_errors, predictions
from embinv.inverter import TextInverter, load_inverter
from embinv.metrics.figures import Figure
from embinv.tasks import Task, Way, invert_task

BUDGETS = (1, 2, 4, 8, 16)  # and L
USUAL = 8
CALIBRATION_ROWS = 2000


Choice = tuple[str, DecodingOptions]
"""A strategy with its options."""


def _remasking(rule: str, rate: float) -> Choice:
    return "remasking", DecodingOptions(remasking=rule, remasking_rate=rate)


WAYS: dict[str, Choice] = {
    "confidence": ("confidence", DecodingOptions()),
    "confidence, cosine reveal": ("confidence", DecodingOptions(reveal="cosine")),
    "margin": ("confidence", DecodingOptions(order="margin")),
    "entropy": ("confidence", DecodingOptions(order="entropy")),
    "sequential": ("sequential", DecodingOptions()),
    "euler": ("euler", DecodingOptions()),
    "euler, temperature 0": ("euler", DecodingOptions(temperature=0.0)),
    "euler, top-p 0.9": ("euler", DecodingOptions(top_p=0.9)),
    "remasking, threshold 0.05": _remasking("threshold", 0.05),
    "remasking, probability 0.05": _remasking("probability", 0.05),
    "remasking, probability 0.1": _remasking("probability", 0.1),
    "remasking, probability 0.2": _remasking("probability", 0.2),
    "remdm-cap 0.05": _remasking("remdm-cap", 0.05),
    "remdm-rescale 0.1": _remasking("remdm-rescale", 0.1),
    "remdm-confidence": _remasking("remdm-confidence", 0.05),
    "remdm-loop 0.05": _remasking("remdm-loop", 0.05),
    "two-stage": ("two_stage", DecodingOptions()),
    "candidates, 4": ("candidates", DecodingOptions()),
}


@dataclass(frozen=True)
class Texts:
    """Held-out pairs and their content ids."""

    pairs: Pairs
    originals: list[list[int]]
    vectors: np.ndarray


def measure_quality(checkpoint: Path, data: Path, rows: int, threads: int, repeats: int) -> dict[str, Any]:
    """Figures of all ways and budgets, and those that the default must hold.

    Raises:
        ValueError: checkpoint and data do not belong together, or there are fewer than two test texts.
    """
    torch.set_num_threads(threads)
    inverter = load_inverter(checkpoint)
    require_same_recipe(read_recipe(data), inverter.config.pairs, data, f"the checkpoint {checkpoint}")
    test = remove_known(read_pairs(data, "test").sample(rows, 0), read_pairs(data, "train")).pairs
    texts = Texts(
        test,
        [inverter.tokenizer.content(ids) for ids in test.token_ids.tolist()],
        test.embeddings.astype(np.float32),
    )
    length = inverter.config.pairs.seq_len
    budgets = [*(budget for budget in BUDGETS if budget < length), length]
    found = {
        name: {str(budget): _figures(inverter, texts, name, Way(strategy, budget, options)) for budget in budgets}
        for name, (strategy, options) in WAYS.items()
    }
    usual = found["confidence"]
    best = {str(budget): max(found, key=lambda name: found[name][str(budget)]["token_accuracy"]) for budget in budgets}
    gap = usual[str(length)]["token_accuracy"] - usual[str(USUAL)]["token_accuracy"]
    return {
        "accuracy_gap_points": round(100 * gap, 2),
        "speedup_8_over_L": _speedup(inverter, texts, length, repeats),
        **_calibration(inverter, texts, data),
        "held_out_texts": len(test),
        "seq_len": length,
        "best": best,
        "ways": found,
    }


def _invert(inverter: TextInverter, texts: Texts, way: Way) -> tuple[Generation, float]:
    inversions, seconds = invert_task(inverter, Task(texts.vectors, way))
    return Generation(texts.originals, texts.pairs.texts, inversions), seconds


def _figures(inverter: TextInverter, texts: Texts, name: str, way: Way) -> dict[str, float]:
    generation, seconds = _invert(inverter, texts, way)
    found = generation.figures()
    milliseconds = round(1000 * seconds / len(texts.originals), 2)
    accuracy = found["token_accuracy"]
    print(
        f"{name}, {way.steps} passes: {accuracy.value:.1%} of tokens, {milliseconds} ms a text",
        file=sys.stderr,
        flush=True,
    )
    return {
        **{key: _rounded(figure) for key, figure in found.items()},
        "token_accuracy_se": round(accuracy.standard_error, 4),
        "milliseconds": milliseconds,
    }


def _rounded(figure: Figure) -> float:
    return round(figure.value, 4)


def _speedup(inverter: TextInverter, texts: Texts, length: int, repeats: int) -> float:
    """Time of L passes over that of 8, in turns; medians."""
    seconds: dict[str, list[float]] = {"8": [], "L": []}
    budgets = {"8": USUAL, "L": length}
    for turn in range(repeats):
        for name in alternating(budgets, turn):
            seconds[name].append(_invert(inverter, texts, Way("confidence", budgets[name]))[1])
    return round(median(seconds["L"]) / median(seconds["8"]), 2)


def _calibration(inverter: TextInverter, texts: Texts, data: Path) -> dict[str, Any]:
    """Errors on test of probabilities that are fitted on validation texts now."""
    known, way = read_pairs(data, "validation").sample(CALIBRATION_ROWS, 0), Way("confidence", USUAL)
    inversions, _ = invert_task(inverter, Task(known.embeddings.astype(np.float32), way))
    fitted = calibrate(inverter.tokenizer, known, way, inversions)
    inverter.calibrations = inverter.calibrations.with_one(fitted)
    generation, _ = _invert(inverter, texts, way)
    errors = calibration_errors(predictions(generation))
    return {
        "expected_calibration_error": _rounded(errors["calibration_error"]),
        "expected_calibration_error_se": round(errors["calibration_error"].standard_error, 4),
        "text_calibration_error": _rounded(errors["text_calibration_error"]),
        "calibration_texts": len(known),
    }


def tables(result: dict[str, Any]) -> str:
    """Tokens right and milliseconds a text, of each way at each budget."""
    budgets = list(next(iter(result["ways"].values())))
    lines = [f"| strategy | {' | '.join(f'{b} passes' for b in budgets)} |", f"|---{'|---' * len(budgets)}|"]
    for name, by_budget in result["ways"].items():
        cells = [
            f"{'**' if result['best'][b] == name else ''}{100 * f['token_accuracy']:.1f}%"
            f"{'**' if result['best'][b] == name else ''}, {f['milliseconds']:.1f} ms"
            for b, f in by_budget.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
