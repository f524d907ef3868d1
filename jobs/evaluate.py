"""checkpoint + held-out pairs -> report.json, report.md, report.html and texts.parquet.

The rules are those of embinv/evaluation/evaluate.py.
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from json import loads
from pathlib import Path
from typing import Any

import torch
import yaml

from embinv.calibration import Calibration, Calibrations
from embinv.config import EvaluationSettings, evaluation_settings
from embinv.data.held_out import remove_known
from embinv.data.labels import read_entities
from embinv.data.pairs import Pairs, read_pairs
from embinv.data.schema import read_recipe, require_same_recipe
from embinv.encoders.base import Encoder
from embinv.encoders.spec import EncoderSpec, resolve_model
from embinv.encoders.trust import open_told_encoder
from embinv.evaluation.evaluate import evaluate
from embinv.evaluation.page import page
from embinv.evaluation.report import by_validation, render
from embinv.evaluation.scores import write_scores
from embinv.inverter import load_inverter
from embinv.metrics.perplexity import load_language_model
from embinv.trained_corrector import load_corrector
from jobs.arguments import job_parser, run_job, write_json, write_whole
from jobs.failures import told_plainly
from jobs.inverting import invert_on_workers
from jobs.outputs import STATS_FILE
from jobs.provenance import end_provenance, keep_provenance
from jobs.session import ray_session
from jobs.staging import place, shown, staged
from jobs.train import RUN_FILE
from jobs.train_identity import require_finished
from jobs.train_recorder import EXAMPLES_FILE, VALIDATIONS_FILE, read_lines

PROGRESS_EVERY = 5.0  # seconds
PROBE_BYTES = 1 << 16  # that a report surely takes


def make_report(
    checkpoint: Path, data: Path, out: Path, settings: EvaluationSettings, device: str, corpus: Path | None = None
) -> dict[str, Any]:
    """Measures a checkpoint and writes report.json, report.md, report.html and texts.parquet into `out`.

    Args:
        checkpoint: what is measured.
        data: pairs with a test split.
        out: where the report goes.
        settings: how it is measured.
        device: cpu or cuda.
        corpus: the texts that the pairs were made of; spans that are labelled there are looked for.

    Raises:
        ValueError: checkpoint and data do not belong together, one of them cannot be read, or `out` not written;
            all of it is looked at before anything is generated.
    """
    began = time.monotonic()
    show = _now_and_then()
    torch.set_num_threads(os.cpu_count() or 1)
    inverter = load_inverter(checkpoint, device=device, precision=settings.precision)
    recipe = read_recipe(data)
    require_same_recipe(recipe, inverter.config.pairs, data, f"the checkpoint {checkpoint}")
    require_finished(data)
    learnt, held_out = read_pairs(data, "train"), read_pairs(data, "test").sample(settings.rows, settings.seed)
    known = remove_known(held_out, learnt, on_progress=show)
    if settings.corrector is not None and (data / "split=correction").is_dir():  # which it has learnt from
        more = remove_known(known.pairs, read_pairs(data, "correction"), on_progress=show)
        known = replace(more, exact=known.exact + more.exact, near=known.near + more.near)
    test = known.pairs
    if len(test) < 2:
        raise ValueError(
            f"--data {data}: split=test has {len(test)} text(s) of {len(held_out)} that no training text is like; a "
            "figure needs at least 2, encode more texts"
        )
    entities = None if corpus is None else read_entities(corpus, test.ids.tolist(), test.texts)
    stats = _read_json(data / STATS_FILE, "make the pairs anew with jobs/encode.py --overwrite")
    training = inverter.config.training
    speeds = {"encode": stats["samples_per_second"], "train": training.get("samples_per_second")}
    seconds = {
        "corpus": stats["corpus"]["seconds"],
        "encode": stats["seconds"],
        "train": run_record(checkpoint).get("seconds") or training.get("seconds"),  # of the whole run, if it is known
    }
    # Of a checkpoint that others trained they are not known.
    speeds, seconds = ({name: value for name, value in found.items() if value} for found in (speeds, seconds))
    recoveries = by_validation(read_lines(checkpoint.parent / EXAMPLES_FILE))
    milestones = read_lines(checkpoint.parent / VALIDATIONS_FILE)
    wanted = settings.language_model
    language_model = None if wanted is None else load_language_model(resolve_model(wanted), device=device)
    with told_plainly(out):
        _require_writable(out)
    corrector = None
    if settings.corrector is not None:
        folder = place(settings.corrector, "evaluation.corrector")
        corrector = load_corrector(folder, recipe, device, precision=settings.precision, seed=settings.seed)
    given = {"checkpoint": shown(checkpoint), "data": shown(data), "texts": None if corpus is None else shown(corpus)}
    with ray_session(inputs=[checkpoint]):
        with told_plainly(out):
            keep_provenance(out, "evaluate", given | {"device": device, "evaluation": settings.model_dump(mode="json")})
        evaluation = evaluate(
            inverter,
            test,
            learnt,
            _encoder_at_hand(recipe.encoder, device),
            settings,
            language_model,
            show,
            validation=_to_calibrate_on(data, settings),
            entities=entities,
            invert=invert_on_workers(
                checkpoint, device, settings.precision, settings.workers, show, settings.accelerator
            ),
            corrector=corrector,
        )
    if evaluation.calibration is not None:
        _keep(evaluation.calibration, checkpoint, inverter.calibrations.weights)
    report = {
        "name": inverter.config.name,
        "encoder": recipe.encoder.model,
        "checkpoint": shown(checkpoint),
        "data": shown(data),
        **evaluation.report,
        "held_out": {"sampled": len(held_out), "same": known.exact, "alike": known.near, "threshold": known.threshold},
        "samples_per_second": speeds | evaluation.report["samples_per_second"],
        "seconds": seconds | {"evaluate": round(time.monotonic() - began, 2)},
        "training": training,
        "milestones": milestones,
        "recoveries": recoveries,
        "settings": settings.model_dump(mode="json"),
    }
    with told_plainly(out):
        write_scores(out, evaluation.scores)
        write_whole(out / "report.md", render(report))
        write_whole(out / "report.html", page(report, evaluation.scores, seed=settings.seed))
        write_json(out / "report.json", report)
        end_provenance(out, "evaluate")
    return report


def _to_calibrate_on(data: Path, settings: EvaluationSettings) -> Pairs | None:
    """Validation texts, or None, said so, where there are none."""
    if (data / "split=validation").is_dir():
        return read_pairs(data, "validation").sample(settings.calibration_rows, settings.seed)
    print(f"probabilities are left out: {data} has no split=validation to fit them on", flush=True)
    return None


def _keep(fitted: Calibration, checkpoint: Path, weights: str) -> None:
    """Puts a calibration into the checkpoint whose weights it is of, or says why not."""
    try:
        kept = Calibrations.load(checkpoint)  # another one may have been added meanwhile
        if kept.weights != weights:
            print(f"the calibration is used here and not kept: {checkpoint} holds other weights by now", flush=True)
            return
        kept.with_one(fitted).save(checkpoint)
    except OSError as error:
        print(f"the calibration is used here and not kept: {checkpoint}: {error.strerror}", flush=True)


def run_record(checkpoint: Path) -> dict[str, Any]:
    """What RUN_FILE says of the run in whose folder a checkpoint lies; nothing where it was moved away from there.

    Raises:
        ValueError: it cannot be read.
    """
    path = checkpoint.parent / RUN_FILE
    return _read_json(path, "copy the checkpoint to a folder of its own") if path.is_file() else {}


def _read_json(path: Path, way_out: str) -> dict[str, Any]:
    try:
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: cannot be read ({why}); {way_out}") from error


def _require_writable(out: Path) -> None:
    """Raises the OSError that writing the report would come to, before minutes are spent on it."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out) as probe:
        probe.write(bytes(PROBE_BYTES))


def _encoder_at_hand(spec: EncoderSpec, device: str) -> Encoder | None:
    """The encoder, or None where it cannot be had; the report then says that the cosine is left out."""
    try:
        encoder = open_told_encoder(spec, device=device)
        encoder.encode(["a text"])  # a server may be asked for the first time now, and not answer
        return encoder
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


def is_of_the_report(name: str) -> bool:
    """Which files of the output folder are this job's: a whole run may lie there."""
    return "/" not in name


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Measure a checkpoint on held-out pairs: generation from a full mask, beside its baselines.",
        "examples:\n  python jobs/evaluate.py --checkpoint runs/my/checkpoint --data runs/my/pairs --out runs/my\n"
        "  ... --texts runs/my/texts --set evaluation.rows=2000 --set evaluation.sweep_rows=500",
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that jobs/train.py made")
    parser.add_argument("--data", required=True, metavar="DIR", help="pairs that jobs/encode.py made")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the report")
    parser.add_argument(
        "--texts",
        metavar="DIR",
        help="texts that the pairs were made of, as jobs/corpus.py wrote them: spans that are labelled there are "
        "looked for in what is recovered",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to generate (default cpu)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="measure otherwise than the run's config says, e.g. evaluation.rows=200, evaluation.steps=16; repeatable",
    )
    arguments = parser.parse_args(argv)
    checkpoint = place(arguments.checkpoint, "--checkpoint")
    data, out = place(arguments.data, "--data"), place(arguments.out)
    corpus = None if arguments.texts is None else place(arguments.texts, "--texts")
    run_file = checkpoint.parent / RUN_FILE
    with staged(checkpoint, inputs=[data, corpus, run_file]), staged(out, owned=is_of_the_report):
        made_by = run_record(checkpoint).get("config", {}).get("evaluation", {})
        where = "--set" if arguments.overrides else shown(run_file)
        settings = evaluation_settings(made_by, arguments.overrides, where)
        print(f"# evaluate: checkpoint={shown(checkpoint)}, data={shown(data)}, out={shown(out)}")
        print(yaml.safe_dump({"evaluation": settings.model_dump(mode="json")}, sort_keys=False), flush=True)
        corrector = None if settings.corrector is None else place(settings.corrector, "evaluation.corrector")
        with staged(inputs=[corrector]):
            report = make_report(checkpoint, data, out, settings, arguments.device, corpus)
    print((out / "report.md").read_text(encoding="utf-8"))
    print(f"{report['token_accuracy']:.1%} of tokens; written to {shown(out)}/report.md and report.json")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
