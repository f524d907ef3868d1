"""What helps against inversion, and what it costs in retrieval.

    python benchmarks/defences.py --table                     every defence on the demo's checkpoint and pairs
    python benchmarks/defences.py --adaptation-steps 0        without the attacker who adapts: a few minutes
    python benchmarks/defences.py --rows 50 --only noise      one family, to try it

Redaction takes out what the corpus labels and what patterns recognise; without labelled texts it is left out. Lines on
stderr as it goes on, Markdown tables with --table, one JSON line on stdout: `rotation.f1_share_at_500_pairs` is the
token F1 from a rotated store, undone with 500 known pairs, over that without a rotation.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that a script finds its neighbours

import torch
from pydantic import ValidationError

from embinv.audit.redacting import finder_of
from embinv.audit.sweep import sweep
from embinv.audit.sweep_settings import SweepSettings
from embinv.checkpoint import load_checkpoint
from embinv.data.held_out import remove_known
from embinv.data.labels import read_entities
from embinv.data.pairs import read_pairs
from embinv.data.records import LANGUAGES
from embinv.data.schema import read_recipe, reasons, require_same_recipe
from embinv.encoders.base import open_encoder
from embinv.inverter import load_inverter

DEMO = Path(__file__).resolve().parents[1] / "runs" / "demo"
PAIRS = 500  # at which the share of a rotated store is given
FAMILIES: dict[str, Any] = {
    "noise": (),
    "int8": False,
    "binary": False,
    "product": (),
    "matryoshka": (),
    "pca": (),
    "rotation": False,
    "redaction": False,
}
"""Settings by family, with what leaves it out."""


def say(line: str) -> None:
    """Progress goes to stderr, since stdout is for the result."""
    print(line, file=sys.stderr, flush=True)


def settings_of(arguments: argparse.Namespace) -> SweepSettings:
    """The usual settings with what the flags say.

    Raises:
        ValueError: one of them does not validate.
    """
    left_out = {name: off for name, off in FAMILIES.items() if arguments.only and name not in arguments.only}
    adaptation = {"steps": arguments.adaptation_steps} if arguments.adaptation_steps is not None else {}
    try:
        return SweepSettings.model_validate(
            {
                **left_out,
                "rows": arguments.rows,
                "known_rows": arguments.known_rows,
                "steps": arguments.steps,
                "seed": arguments.seed,
                "adaptation": adaptation,
            }
        )
    except ValidationError as error:
        raise ValueError(reasons(error)) from error


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sweep of a checkpoint.

    Raises:
        ValueError: checkpoint and data do not belong together, or a setting does not fit them.
    """
    torch.set_num_threads(arguments.threads)
    settings = settings_of(arguments)
    inverter, checkpoint = load_inverter(arguments.checkpoint), load_checkpoint(arguments.checkpoint)
    recipe = inverter.config.pairs
    require_same_recipe(read_recipe(arguments.data), recipe, arguments.data, f"the checkpoint {arguments.checkpoint}")
    known = read_pairs(arguments.data, "train")
    held_out = remove_known(read_pairs(arguments.data, "test"), known).pairs
    labels = [
        read_entities(arguments.texts, pairs.ids.tolist(), pairs.texts) if arguments.texts.is_dir() else None
        for pairs in (known, held_out)
    ]
    find_spans = None
    if settings.redaction and labels[0] is not None and labels[1] is not None:
        find_spans = finder_of([(known, labels[0]), (held_out, labels[1])], LANGUAGES)
    elif settings.redaction:
        say(f"redaction and entity recall are left out: {arguments.texts} labels nothing in these texts")
    began = time.monotonic()
    found = sweep(
        inverter,
        checkpoint,
        known,
        held_out,
        settings,
        entities=labels[1],
        encoder=open_encoder(recipe.encoder) if find_spans else None,
        find_spans=find_spans,
        on_progress=lambda line: say(f"{time.monotonic() - began:6.0f} s  {line}"),
    )
    share = next((row["f1_share"] for row in found["rotation"] if row["pairs"] == PAIRS), None)
    return {
        "rotation": {f"f1_share_at_{PAIRS}_pairs": share, "by_pairs": found["rotation"]},
        "held_out_texts": found["n"],
        "known_texts": found["known"],
        "seconds": round(time.monotonic() - began, 1),
        "settings": found["settings"],
        "rows": found["rows"],
    }


def tables(result: dict[str, Any]) -> str:
    """All defences, and the rotation by known pairs, in Markdown."""
    names = ("token_f1", "entity_recall")
    lines = [
        "| defence | setting | bytes | token F1 | entity recall | adapted F1 | adapted recall | nDCG@10 | recall@10 | "
        "front |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        figures = [_percent((row[who] or {}).get(name)) for who in ("leakage", "adapted") for name in names]
        cells = [row["defence"], row["setting"], str(row["bytes_per_vector"]), *figures]
        cells += [_percent(row["ndcg_at_10"]), _percent(row["recall_at_10"]), "yes" if row["on_front"] else ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| known pairs | token F1 | of that without a rotation |", "|---|---|---|"]
    lines += [
        f"| {row['pairs']} | {_percent(row['token_f1'])} | {_percent(row['f1_share'])} |"
        for row in result["rotation"]["by_pairs"]
    ]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"


def command_line() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEMO / "checkpoint", metavar="DIR")
    parser.add_argument("--data", type=Path, default=DEMO / "pairs", metavar="DIR")
    parser.add_argument("--texts", type=Path, default=DEMO / "texts", metavar="DIR", help="labelled, of the same pairs")
    parser.add_argument("--rows", type=int, default=500, help="test texts at most (default 500)")
    parser.add_argument("--known-rows", type=int, default=5000, help="texts of the attacker at most (default 5000)")
    parser.add_argument("--steps", type=int, default=8, help="passes of decoding (default 8)")
    parser.add_argument("--adaptation-steps", type=int, metavar="N", help="of retraining; 0 turns it off (default 70)")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, help="families of defences (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the CPU (default: all)")
    parser.add_argument("--table", action="store_true", help="print Markdown tables before the JSON line")
    return parser


def main() -> None:
    """Entry point; a user's mistake ends it with one sentence and exit code 2."""
    arguments = command_line().parse_args()
    try:
        found = measure(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if arguments.table:
        print(tables(found))
    print(json.dumps({"benchmark": "defences", "cores": os.cpu_count(), "threads": arguments.threads, **found}))


if __name__ == "__main__":
    main()
