"""Refinement with the encoder at hand: what correctors add to a diffusion inverter and to a T5, at equal minutes.

On pairs that keep a share for correctors (`data.correction`), each family gets an inverter, the inverter's hypotheses
of texts that it has not seen, and a corrector that begins as that inverter, by the project's own jobs; broken off, it
goes on. Then held-out texts are inverted by diffusion in 8 passes, by T5 greedily and by T5 with a beam of 4, and
each is refined by what needs no training, by its own corrector and by the other family's.

Prints a table, then one JSON line. `bleu_gain_5_steps` is BLEU after 5 steps over BLEU before, of the diffusion
inverter with its own corrector; `cosine_falls` counts texts, over all rows, that are further from their vector than
before.

    python benchmarks/refine.py --pairs runs/refine/pairs --work runs/refine --minutes 3
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embinv.config import EvaluationSettings
from embinv.data.held_out import remove_known
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import read_recipe
from embinv.decoding.options import Choices
from embinv.decoding.refine import Corrector
from embinv.encoders.base import Encoder, open_encoder
from embinv.evaluation.generation import Generation
from embinv.evaluation.refinement import REWRITING, refinement_rows
from embinv.inversion import Inversion
from embinv.inverter import TextInverter, load_inverter
from embinv.tasks import Task, Way, invert_task
from embinv.trained_corrector import load_corrector

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("mdlm", "t5")
DECODERS = {"diffusion, 8 passes": ("mdlm", "confidence"), "T5 greedy": ("t5", "greedy"), "T5 beam 4": ("t5", "beam")}
BUDGETS = [(1, 1), (1, 4), (5, 4)]
HEADLINE = ("diffusion, 8 passes", "own corrector", 5, 4)
COLUMNS = ("token_f1", "bleu", "exact_match", "cosine")


def job(name: str, *arguments: object) -> None:
    """Runs a job; its output goes to stderr, so that stdout keeps the figures."""
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]
    print("$", " ".join(command), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr, env=os.environ | {"PYTHONPATH": str(ROOT)})


def prepare(
    config: str, pairs: Path, work: Path, family: str, minutes: tuple[float, float], settings: list[str]
) -> None:
    """Makes inverter, hypotheses and corrector of a family, or goes on with them; `minutes` of the first and last."""
    common = [part for setting in [f"model.family={family}", *settings] for part in ("--set", setting)]
    inverter, hypotheses, corrector = (work / f"{family}-{name}" for name in ("inverter", "hypotheses", "corrector"))
    train = ("train", "--resume", "--config", config)
    job(*train, "--data", pairs, "--out", inverter, "--minutes", minutes[0], *common)
    job("hypotheses", "--checkpoint", inverter / "checkpoint", "--data", pairs, "--out", hypotheses)
    begins = ("--set", "model.corrector=true", "--set", f"model.inverter={inverter / 'checkpoint'}")
    job(*train, "--data", hypotheses, "--out", corrector, "--minutes", minutes[1], *common, *begins)


def held_out(pairs: Path, rows: int) -> Pairs:
    """Test texts that neither an inverter nor a corrector has seen anything like."""
    test = read_pairs(pairs, "test").sample(rows, 0)
    for split in ("train", "correction"):
        test = remove_known(test, read_pairs(pairs, split)).pairs
    return test


def decoded(inverter: TextInverter, test: Pairs, strategy: str) -> tuple[Generation, float]:
    """What is recovered from the vectors alone, and milliseconds a text."""
    steps = inverter.passes(strategy, EvaluationSettings().steps)
    inverter.require(Choices(strategy, steps))
    vectors = test.embeddings.astype(np.float32)
    inversions, seconds = invert_task(inverter, Task(vectors, Way(strategy, steps)))
    originals = [inverter.tokenizer.content(ids) for ids in test.token_ids.tolist()]
    return Generation(originals, test.texts, inversions), 1000 * seconds / len(test)


def measured(
    inverters: dict[str, TextInverter], correctors: dict[str, Corrector[Inversion]], encoder: Encoder, test: Pairs
) -> list[dict[str, Any]]:
    """Rows of `embinv.evaluation.refinement`, with `decoder` and a `by` that says whose corrector it is."""
    found: list[dict[str, Any]] = []
    vectors = test.embeddings.astype(np.float32)
    for name, (family, strategy) in DECODERS.items():
        if family not in inverters:
            continue
        generation, milliseconds = decoded(inverters[family], test, strategy)
        whose = {other: "own corrector" if other == family else "the other's corrector" for other in correctors}
        rows = refinement_rows(
            inverters[family],
            vectors,
            generation,
            encoder,
            BUDGETS,
            decoding_ms=milliseconds,
            on_progress=lambda line, name=name: print(f"{name}: {line}", file=sys.stderr, flush=True),
            ways={**REWRITING, **{whose[other]: corrector for other, corrector in correctors.items()}},
        )
        found += [{"decoder": name, **row, "by": row["by"] or ""} for row in rows]
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| decoder | steps x held | by | token F1 | BLEU | exact | cosine | encoder calls | ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        f1, bleu, exact, cosine = (f"{row[name]:.3f} ± {row[name + '_se']:.3f}" for name in COLUMNS)
        bleu = f"{row['bleu']:.1f} ± {row['bleu_se']:.1f}"
        costs = f"{row['encoder_calls']:.1f} | {row['milliseconds']:.1f}"
        held = f"{row['steps']} x {row['beam']}" if row["beam"] else "0"
        lines.append(f"| {row['decoder']} | {held} | {row['by']} | {f1} | {bleu} | {exact} | {cosine} | {costs} |")
    return "\n".join(lines)


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON line but for what it was measured on."""
    before = {row["decoder"]: row["bleu"] for row in rows if not row["beam"]}
    gains = {
        (row["decoder"], row["by"], row["steps"], row["beam"]): row["bleu"] / before[row["decoder"]]
        for row in rows
        if row["beam"] and before[row["decoder"]] > 0
    }
    return {
        "bleu_gain_5_steps": round(gains[HEADLINE], 3) if HEADLINE in gains else None,
        "bleu_gains": {
            f"{name}, {by}, {steps} x {beam}": round(gain, 3) for (name, by, steps, beam), gain in gains.items()
        },
        "cosine_falls": sum(row["cosine_falls"] for row in rows),
    }


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, metavar="DIR", help="made with data.correction above 0")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="inverters, hypotheses, correctors")
    parser.add_argument("--config", default="configs/minilm.yaml", help="default: configs/minilm.yaml")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, of each model (default 3)")
    parser.add_argument("--corrector-minutes", type=float, metavar="M", help="of a corrector's (default: as --minutes)")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES, help="default: both")
    parser.add_argument("--rows", type=int, default=100, help="held-out texts (default 100)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch while measuring")
    parser.add_argument("--set", dest="settings", action="append", default=["model.size=tiny"], metavar="KEY=VALUE")
    given = parser.parse_args(argv)
    began = time.monotonic()
    pairs, work = given.pairs.resolve(), given.work.resolve()
    minutes = (given.minutes, given.corrector_minutes or given.minutes)
    for family in given.families:
        prepare(given.config, pairs, work, family, minutes, given.settings)
    torch.set_num_threads(given.threads)
    recipe = read_recipe(pairs)
    test = held_out(pairs, given.rows)
    rows = measured(
        {family: load_inverter(work / f"{family}-inverter" / "checkpoint") for family in given.families},
        {family: load_corrector(work / f"{family}-corrector" / "checkpoint", recipe) for family in given.families},
        open_encoder(recipe.encoder),
        test,
    )
    print(table(rows), file=sys.stderr)
    result = {"benchmark": "refine", "n": len(test), "minutes": minutes, **figures(rows), "rows": rows}
    print(json.dumps(result | {"seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
