"""pairs + an inverter -> what a corrector learns from: vectors, what the inverter made of them, and vectors of that.

Of the pairs it reads split=correction, from which no inverter learns, as the train split of what it makes, and
validation as it is; so hypotheses are of texts that the inverter has not seen (embinv/data/corrections.py). Rows are
written exactly once (jobs/exactly_once.py), so that a job that was killed goes on where it was.
"""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from embinv.data.schema import PairsRecipe, matrix
from embinv.data.sole_writer import sole_writer
from jobs.arguments import (
    SETTINGS_FILE,
    add_accelerator,
    job_parser,
    require_gpu,
    run_job,
    write_json,
    write_whole,
)
from jobs.exactly_once import (
    RUN_FILE,
    discard_uncommitted,
    distinct,
    finished,
    ids_by_split,
    progress_folder,
    start_over,
)
from jobs.failures import told_plainly
from jobs.hypotheses_pipeline import WINDOW_ROWS, run_pipeline
from jobs.hypotheses_run import SPLITS, Job, Wish, job_of, require_same_run, run_of
from jobs.outputs import STATS_FILE, SUCCESS_FILE, require_siblings
from jobs.progress import Clock, RowCounter, Watch, duration
from jobs.provenance import end_provenance, keep_provenance
from jobs.rejects import FOLDER as REJECTED
from jobs.rejects import clear, read_rejects, refuse_file
from jobs.session import ray_session
from jobs.shards import list_windows
from jobs.staging import place, shown, staged


def make_hypotheses(wish: Wish, overwrite: bool = False) -> dict[str, Any]:
    """Runs the job; returns the statistics that it also writes.

    Args:
        wish: what to make.
        overwrite: delete hypotheses that another run left in the output folder.

    Raises:
        ValueError: what `job_of` refuses, the output folder holds something else, the encoder cannot be had, or the
            disk is full.
    """
    job, out = job_of(wish), wish.out
    run = run_of(job)
    require_siblings(out)
    with told_plainly(out), sole_writer(out):
        if overwrite:
            start_over(out, "hypotheses")
        require_same_run(out, run)
        stats = finished(out)
        if stats is not None:
            print(f"{out}: all done before, {stats['rows']:,} hypotheses; --overwrite makes them anew")
            return stats
        with ray_session(out, inputs=[job.wish.data, job.wish.checkpoint]):
            return _make(job, run)


def _make(job: Job, run: dict[str, Any]) -> dict[str, Any]:
    """Makes the hypotheses from where an earlier run of the same job got to."""
    out = job.wish.out
    progress = progress_folder(out)
    rmtree(job.started, ignore_errors=True)
    job.started.mkdir(parents=True)
    write_json(progress / RUN_FILE, run)  # before anything lies in `out`, or that would be taken for a stranger's
    out.mkdir(exist_ok=True)
    write_whole(out / SETTINGS_FILE, f"# written by jobs/hypotheses.py\n{settings_text(job)}")
    keep_provenance(out, "hypotheses", settings_of(job))
    clear(out)
    discard_uncommitted(out, progress / "ids")
    files = [file for split in SPLITS for file in sorted(job.wish.data.glob(f"split={split}/*.parquet"))]
    windows = list_windows(files, WINDOW_ROWS, refuse_file)
    total = sum(window.rows for window in windows)
    clock = Clock(progress / "seconds.json")
    with Watch(RowCounter(out), total, "inverted", clock.keep) as watch:
        run_pipeline(job, windows, progress / "ids")
    seconds = watch.seconds
    by_split = ids_by_split(out)
    ids = distinct(by_split, out)
    refused = read_rejects(out).without(ids)
    lost = total - len(ids) - len(refused.rows)
    if lost:
        raise ValueError(
            f"--out {out}: {lost:,} of {total:,} texts are neither there nor set aside, so files were taken from it; "
            "give --overwrite to make it anew"
        )
    for split in SPLITS.values():
        if not len(by_split.get(split, ())):
            raise ValueError(f"no text of split={split} got a hypothesis; left out by reason: {refused.reasons()}")
    stats = {
        "rows": len(ids),
        "splits": {split: len(found) for split, found in by_split.items()},
        "dropped": refused.reasons(),
        "recovered": {split: recovered(sorted(out.glob(f"split={split}/*.parquet")), job.recipe) for split in by_split},
        "seconds": round(clock.earlier + seconds, 2),
        "samples_per_second": round((len(ids) - watch.before) / seconds, 1),
        "run": run,
    }
    write_json(out / STATS_FILE, stats)
    end_provenance(out, "hypotheses")
    (out / SUCCESS_FILE).touch()
    rmtree(progress)
    return stats


def settings_of(job: Job) -> dict[str, Any]:
    """All settings of a run, as JSON has them."""
    tree = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(job.wish).items()}
    made_by, encoding = job.hypotheses.model_dump(mode="json"), job.encoding.model_dump(mode="json")
    return tree | {"hypotheses": made_by, "encoding": encoding}


def settings_text(job: Job) -> str:
    """The same in YAML."""
    return yaml.safe_dump(settings_of(job), sort_keys=False)


def recovered(files: Iterable[Path], recipe: PairsRecipe) -> dict[str, float]:
    """How near the hypotheses in some files are to their texts.

    Returns:
        `token_accuracy`, the share of content tokens that stand in their place, and `exact_match`, that of texts which
        are the same to the last letter.
    """
    tokens = right = texts = same = 0
    for file in files:
        table = pq.read_table(file, columns=["text", "token_ids", "hypothesis", "hypothesis_ids"], partitioning=None)
        ids, read = (matrix(table[name], recipe.seq_len) for name in ("token_ids", "hypothesis_ids"))  # [N, L]
        content = ~np.isin(ids, (recipe.eos_id, recipe.pad_id))
        tokens, right = tokens + int(content.sum()), right + int((content & (ids == read)).sum())
        texts, same = texts + len(table), same + _true(pc.equal(table["text"], table["hypothesis"]))
    return {"token_accuracy": round(right / max(tokens, 1), 4), "exact_match": round(same / max(texts, 1), 4)}


def _true(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)


def summary(stats: dict[str, Any], out: str) -> str:
    """What became of all texts, as lines to read."""
    splits = ", ".join(f"{split} {rows:,}" for split, rows in stats["splits"].items())
    speed = f"{duration(stats['seconds'])}, {stats['samples_per_second']:,.0f}/s with start-up"
    lines = [f"{stats['rows']:,} hypotheses in {out} ({splits}; {speed})"]
    lines += [
        f"  {split:<12} {found['token_accuracy']:.1%} of tokens recovered, {found['exact_match']:.1%} whole texts"
        for split, found in stats["recovered"].items()
    ]
    if stats["dropped"]:
        lines.append(f"left out {sum(stats['dropped'].values()):,} texts, named in {out}/{REJECTED}:")
    lines += [f"  {rows:>12,}  {reason}" for reason, rows in stats["dropped"].items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Make what a corrector learns from: invert the vectors of texts that the inverter has not seen, and encode\n"
        "what comes out. The pairs keep such texts in split=correction if they were encoded with data.correction\n"
        "above 0; they become the train split of OUT, and validation stays what it is. No test text is read.\n\n"
        "A checkpoint says which texts it learnt from. One that learnt from others than the train split of these\n"
        "pairs, or does not say, is refused: what an inverter recovers of texts that it knows is too good to learn\n"
        "from. With --assume-unseen, see at the end whether more of train is recovered than of validation: then it\n"
        "knows them.\n\n"
        "Stopped or crashed, the same command goes on where it was; finished, it does nothing. Texts without a vector\n"
        "are set aside in OUT/_rejected with the reason, and the others go on.",
        "exit codes: 0 done, 1 the run went wrong, 2 a mistake that the message tells how to mend, 130 Ctrl-C\n\n"
        "examples:\n"
        "  python jobs/hypotheses.py --checkpoint runs/my/checkpoint --data runs/my/pairs --out runs/my/hypotheses\n"
        "  ... --device cuda --workers 4       four inverters on GPUs, an encoder beside each\n"
        "  ... --steps 16                      hypotheses as good as 16 passes make them\n"
        "  ... --assume-unseen                 with a checkpoint that others trained",
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="inverter that jobs/train.py made")
    parser.add_argument("--data", required=True, metavar="DIR", help="pairs that jobs/encode.py made")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make, or to go on with")
    parser.add_argument("--strategy", metavar="S", help="how to invert (default: the first of the inverter's)")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="passes at most (default 8)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute (default cpu)")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16"),
        help="of the inverter (default auto: bfloat16 where the hardware multiplies in it)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="inverters (default: one a core up to four a node, or one a GPU)"
    )
    add_accelerator(parser)
    parser.add_argument("--overwrite", action="store_true", help="delete the hypotheses in --out and make them anew")
    parser.add_argument(
        "--assume-unseen",
        action="store_true",
        help="take a checkpoint that does not say that it has not seen the texts of split=correction",
    )
    given = parser.parse_args(argv)
    require_gpu(given)
    if given.workers is not None and given.workers < 1:
        raise ValueError(f"--workers {given.workers}: give at least 1")
    checkpoint = place(given.checkpoint, "--checkpoint")
    data, out = place(given.data, "--data"), place(given.out)
    wish = Wish(
        checkpoint,
        data,
        out,
        given.strategy,
        given.steps,
        given.device,
        given.precision,
        given.workers,
        given.accelerator,
        given.assume_unseen,
    )
    print(f"# hypotheses: checkpoint={shown(checkpoint)}, data={shown(data)}, out={shown(out)}", flush=True)
    with staged(out, inputs=[checkpoint, data]):
        stats = make_hypotheses(wish, given.overwrite)
    print(summary(stats, shown(out)))
    print(
        f"next: python jobs/train.py --config C --data {shown(out)} --out {shown(out.with_name('corrector'))} "
        "--set model.corrector=true"
    )


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
