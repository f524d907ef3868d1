"""checkpoint + held-out pairs -> report.json and report.md, under the rules of embinv/evaluation.py."""

import os
import sys
import time
from json import loads
from pathlib import Path
from typing import Any

import torch
import yaml

from embinv.checkpoint import read_checkpoint_config
from embinv.config import EvaluationSettings, build_config
from embinv.data.pairs import read_pairs
from embinv.data.schema import read_recipe, require_same_recipe
from embinv.encoders.base import Encoder, open_encoder
from embinv.encoders.spec import EncoderSpec
from embinv.evaluation import evaluate
from embinv.inverter import load_inverter
from embinv.report import milestones, render
from jobs.arguments import job_parser, output_folder, run_job, write_json
from jobs.outputs import STATS_FILE
from jobs.train import RUN_FILE
from jobs.train_recorder import EXAMPLES_FILE, read_lines

PROGRESS_EVERY = 5.0  # seconds


def make_report(checkpoint: Path, data: Path, out: Path, settings: EvaluationSettings, device: str) -> dict[str, Any]:
    """Measures a checkpoint and writes report.json and report.md into `out`.

    Raises:
        ValueError: checkpoint and data do not belong together, or one of them cannot be read.
    """
    began = time.monotonic()
    torch.set_num_threads(os.cpu_count() or 1)
    inverter = load_inverter(checkpoint, device=device)
    recipe = read_recipe(data)
    require_same_recipe(recipe, inverter.config.pairs, data, f"the checkpoint {checkpoint}")
    test = read_pairs(data, "test").sample(settings.rows, settings.seed)
    if len(test) < 2:
        raise ValueError(
            f"--data {data}: split=test has {len(test)} text; a figure needs at least 2, encode more texts"
        )
    report = evaluate(
        inverter,
        test,
        read_pairs(data, "train"),
        _encoder_at_hand(recipe.encoder, device),
        settings.strategy,
        settings.steps,
        settings.examples,
        settings.seed,
        _now_and_then(),
    )
    stats = loads((data / STATS_FILE).read_text(encoding="utf-8"))
    training = inverter.config.training
    report = {
        "name": inverter.config.name,
        "encoder": recipe.encoder.model,
        "checkpoint": str(checkpoint),
        "data": str(data),
        **report,
        "samples_per_second": {
            "encode": stats["samples_per_second"],
            "train": training["samples_per_second"],
            **report["samples_per_second"],
        },
        "seconds": {
            "corpus": stats["corpus"]["seconds"],
            "encode": stats["seconds"],
            "train": _training_seconds(checkpoint, training),
            "evaluate": round(time.monotonic() - began, 2),
        },
        "training": training,
        "recoveries": milestones(read_lines(checkpoint.parent / EXAMPLES_FILE)),
        "settings": settings.model_dump(mode="json"),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(render(report), encoding="utf-8")
    write_json(out / "report.json", report)
    return report


def _training_seconds(checkpoint: Path, training: dict[str, Any]) -> float:
    """Time of the whole run where its record lies beside the checkpoint; else up to this checkpoint."""
    record = checkpoint.parent / RUN_FILE
    whole = loads(record.read_text(encoding="utf-8")).get("seconds") if record.is_file() else None
    return whole if whole is not None else training["seconds"]


def _encoder_at_hand(spec: EncoderSpec, device: str) -> Encoder | None:
    """The encoder, or None where its weights cannot be had; the report then says that the cosine is left out."""
    try:
        return open_encoder(spec, device=device)
    except ValueError as error:
        print(f"the cosine is left out: {error}", flush=True)
        return None


def _now_and_then() -> Any:
    """A printer that shows a line every few seconds at most."""
    last = 0.0

    def show(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_EVERY:
            last = time.monotonic()
            print(line, flush=True)

    return show


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Measure a checkpoint on held-out pairs: generation from a full mask, beside three baselines.",
        "example:\n  python jobs/evaluate.py --checkpoint runs/my/checkpoint --data runs/my/pairs --out runs/my",
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that jobs/train.py made")
    parser.add_argument("--data", required=True, metavar="DIR", help="pairs that jobs/encode.py made")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for report.json and report.md")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to generate (default cpu)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a setting of the run, e.g. evaluation.rows=200 or evaluation.steps=16; repeatable",
    )
    arguments = parser.parse_args(argv)
    checkpoint = output_folder(arguments.checkpoint, "--checkpoint")
    data, out = output_folder(arguments.data, "--data"), output_folder(arguments.out)
    made_by = read_checkpoint_config(checkpoint)
    tree = {"name": made_by.name, "encoder": made_by.pairs.encoder.model_dump()}
    settings = build_config(tree, arguments.overrides, "--set").evaluation
    print(f"# evaluate: checkpoint={checkpoint}, data={data}, out={out}")
    print(yaml.safe_dump({"evaluation": settings.model_dump(mode="json")}, sort_keys=False), flush=True)
    report = make_report(checkpoint, data, out, settings, arguments.device)
    print((out / "report.md").read_text(encoding="utf-8"))
    print(f"{report['token_accuracy']:.1%} of tokens; written to {out / 'report.md'} and {out / 'report.json'}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
