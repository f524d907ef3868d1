"""The whole way on one machine, in order: corpus, encode, train, evaluate, serve, invert over HTTP.

Each part is the job of the same name, run in one Ray session; each leaves its output behind and is not done twice.
What `make demo` runs.
"""

import shutil
import sys
import time
from json import loads
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from embinv.config import Config, load_config
from embinv.data.pairs import read_pairs
from embinv.data.sole_writer import sole_writer
from embinv.evaluation.report import figure_table
from jobs.arguments import job_parser, output_folder, run_job, write_json
from jobs.corpus import make_corpus
from jobs.encode import make_pairs
from jobs.evaluate import make_report
from jobs.session import ray_session
from jobs.train import train
from serve_app.app import AppArgs
from serve_app.local import serve_checkpoint

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "minilm.yaml"
PARTS = ("corpus", "encode", "train", "evaluate", "serve and invert")
OURS = (
    "texts pairs checkpoint last tensorboard report.json report.md report.html texts.parquet training.png "
    "progress.jsonl validations.jsonl examples.jsonl train.log failures.log settings.yaml _run.json http.json "
    "provenance.json mlflow.db mlflow-run.json mlflow-artifacts wandb wandb-run.json"
).split()
UNFINISHED = tuple(f".{name}." for name in OURS)  # .checkpoint.partial, .last.old, .pairs.progress and others
LEFT = {f"{Path(name).stem}.partial" for name in OURS}  # progress.partial and others
FAMILIES = ("state-", ".saving-", "mlflow.db-")  # the last: SQLite's journals


def run_demo(config: Config, out: Path, console: Console) -> None:
    """Runs what is not done yet and shows the result.

    Raises:
        ValueError: `out` holds something else.
    """
    texts, pairs, checkpoint = out / "texts", out / "pairs", out / "checkpoint"
    began = time.monotonic()

    def part(number: int, what: str) -> None:
        spent = time.monotonic() - began
        console.rule(f"[bold]{number}/{len(PARTS)} {PARTS[number - 1]}[/bold]: {what}  ({spent / 60:.1f} min)")

    if (out / "http.json").is_file():
        console.print(f"{out}: all is done already; `make demo FRESH=1` starts over")
    else:
        training = config.training
        budget = f"{training.minutes:g} minutes" if training.minutes else f"{training.max_steps:,} steps"
        with ray_session():
            part(1, f"{config.data.rows:,} synthetic English records, none of them about anybody")
            make_corpus(config, texts)
            part(2, f"each text becomes {config.encoder.dim} numbers by all-MiniLM-L6-v2")
            make_pairs(config, texts, pairs)
            part(3, f"a masked diffusion model learns to read such vectors, {budget}")
            train(config, pairs, out, resume=True)
            part(4, f"{config.evaluation.rows} held-out texts from their vectors alone, beside four baselines")
            make_report(checkpoint, pairs, out, config.evaluation, "cpu", texts)
            part(5, "the checkpoint behind HTTP on 127.0.0.1")
            write_json(out / "http.json", invert_over_http(config, checkpoint, pairs))
    report, answer = (loads((out / name).read_text(encoding="utf-8")) for name in ("report.json", "http.json"))
    show(shown_path(out), report, answer, console)


def invert_over_http(config: Config, checkpoint: Path, pairs: Path) -> dict[str, Any]:
    """Serves the checkpoint, posts held-out vectors to it, and returns what came back."""
    test = read_pairs(pairs, "test").sample(config.evaluation.examples, config.evaluation.seed)
    with serve_checkpoint(AppArgs(encoder=config.name, checkpoint=str(checkpoint)), port=0) as url:
        endpoint = f"{url}/invert/{config.name}"
        body = {"embeddings": test.embeddings.astype(float).tolist(), "steps": config.evaluation.steps}
        with httpx.Client(trust_env=False, timeout=60.0) as client:
            response = client.post(endpoint, json=body)
            response.raise_for_status()
    answer = response.json()
    results = [
        {"original": original, "recovered": result["text"], "confidence": result["confidence"]}
        for original, result in zip(test.texts, answer["results"], strict=True)
    ]
    return {"url": endpoint, "milliseconds": answer["milliseconds"], "results": results}


def shown_path(path: Path) -> Path:
    """A path as the user would type it: relative where it lies below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def show(out: Path, report: dict[str, Any], answer: dict[str, Any], console: Console) -> None:
    """The end of the demo: ten texts, the figures with their baselines, and what to do next."""
    console.print()
    texts = Table(
        title=f"{len(answer['results'])} held-out texts, and what POST {answer['url']} recovered from their vectors"
    )
    for column in ("original", "recovered", "confidence"):
        texts.add_column(column, overflow="fold", justify="right" if column == "confidence" else "left")
    for row in answer["results"]:
        texts.add_row(row["original"], row["recovered"], f"{row['confidence']:.2f}")
    console.print(texts)
    header, rows = figure_table(report)
    figures = Table(
        title=f"{report['n']:,} held-out texts, from a full mask in {report['steps']} passes (± standard error)"
    )
    for name in header:
        figures.add_column(name, justify="left" if name == "" else "right")
    for row in rows:
        figures.add_row(*(cell.replace("**", "") for cell in row))
    console.print(figures)
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in report["seconds"].items())
    console.print(f"time: {seconds}", highlight=False)
    console.print(f"files: {out}/report.html, {out}/training.png, {out}/checkpoint", highlight=False)
    console.print(
        "next:\n"
        "  make serve                                  answer POST /invert/minilm on 127.0.0.1:8000\n"
        f'  embinv invert --checkpoint {out}/checkpoint --text "Dr. Weber moved the visit to May 4."\n'
        f"  embinv invert --checkpoint {out}/checkpoint --vectors dump.npy --out recovered.parquet\n"
        "  python jobs/corpus.py --help                your own texts, and another encoder from configs/",
        highlight=False,
        markup=False,
    )


def start_over(out: Path) -> None:
    """Deletes what a demo leaves in `out`, and nothing else.

    Raises:
        ValueError: the folder holds something that is not a demo's, or one is at work there.
    """
    if not out.exists():
        return
    foreign = [path.name for path in out.iterdir() if not is_ours(path.name)]
    if foreign:
        raise ValueError(
            f"--fresh would delete {out}, which holds {foreign[0]} that the demo did not make; move it away"
        )
    with sole_writer(out), sole_writer(out / "texts"), sole_writer(out / "pairs"):  # its jobs lock each their own
        shutil.rmtree(out)


def is_ours(name: str) -> bool:
    """Whether a demo makes something of this name in its folder, be it only until it is killed."""
    return name in OURS or name in LEFT or name.startswith((*UNFINISHED, *FAMILIES))


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Run the whole way on this machine: corpus, encode, train, evaluate, serve, invert over HTTP.",
        "example:\n  python jobs/demo.py --out runs/demo",
    )
    parser.add_argument("--out", default="runs/demo", metavar="DIR", help="folder for everything (default runs/demo)")
    parser.add_argument("--fresh", action="store_true", help="delete what is there and start over")
    parser.add_argument("--config", default=str(CONFIG), metavar="C", help="another config than configs/minilm.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args(argv)
    config = load_config(arguments.config, arguments.overrides)
    out = output_folder(arguments.out)
    if arguments.fresh:
        start_over(out)
    run_demo(config, out, Console(width=None if sys.stdout.isatty() else 120))


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
