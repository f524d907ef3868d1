"""shards -> pairs (id, text, lang, token_ids, embedding), exactly once, by Ray Data.

Each text is aligned with what the decoder can write (embinv/data/alignment.py) and encoded as the recipe says, by the
pipeline in jobs/encode_pipeline.py. Ray Data's checkpoint notes the ids of every committed file, so that a job that was
killed goes on where it was: no row is lost, none stands twice. `_SUCCESS` says that all is there.
"""

import sys
import time
from json import loads
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from embinv.config import Config
from embinv.data.sole_writer import sole_writer
from jobs.arguments import (
    add_config_arguments,
    announce,
    config_from,
    job_parser,
    keep_settings,
    run_job,
    write_json,
)
from jobs.encode_pipeline import run_pipeline
from jobs.encode_plan import plan_encoding, plan_text
from jobs.encode_run import recipe_of, require_same_run, run_of
from jobs.encode_stages import Job
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
from jobs.outputs import STATS_FILE, SUCCESS_FILE, require_siblings
from jobs.progress import Clock, RowCounter, Watch, duration
from jobs.provenance import end_provenance
from jobs.rejects import FOLDER as REJECTED
from jobs.rejects import clear, read_rejects, reject_file, require_few
from jobs.session import ray_session
from jobs.shards import Window, list_windows, readable_ids
from jobs.staging import place, shown, staged

REASONS = {  # as a reader of the statistics would ask; others are an encoder's own words
    "too_few_tokens": "  under data.min_tokens tokens",
    "unreadable_shard": "  in a shard that cannot be read",
}


def read_corpus(texts: Path) -> tuple[dict[str, Any], list[Path]]:
    """The statistics and the shards of a finished corpus.

    Raises:
        ValueError: there is none.
    """
    shards = sorted(texts.glob("*.parquet"))
    if not shards or not (texts / STATS_FILE).is_file():
        raise ValueError(f"--texts {texts}: holds no finished corpus; make one with jobs/corpus.py --out {texts}")
    corpus = loads((texts / STATS_FILE).read_text(encoding="utf-8"))
    if "data" not in corpus:
        raise ValueError(f"--texts {texts}: holds no corpus; make one with jobs/corpus.py")
    if len(shards) != corpus.get("shards", len(shards)):  # older ones do not say how many there were
        raise ValueError(
            f"--texts {texts}: holds {len(shards):,} shards, but its {STATS_FILE} says {corpus['shards']:,}; "
            "make the corpus anew with jobs/corpus.py --overwrite"
        )
    return corpus, shards


def make_pairs(config: Config, texts: Path, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Runs the job in an open Ray session; returns the statistics that it also writes.

    Args:
        config: of the run.
        texts: folder of a finished corpus.
        out: folder of the pairs.
        overwrite: delete pairs that another run left in `out`.

    Raises:
        ValueError: there are no shards, `out` holds pairs of another run, too many shards are broken, the
            encoder cannot be loaded, or the disk is full.
    """
    corpus, shards = read_corpus(texts)
    recipe = recipe_of(config)
    progress = progress_folder(out)
    run = run_of(config, recipe, texts, corpus)
    require_siblings(out)
    with told_plainly(out), sole_writer(out):
        return _make_or_go_on(Job(config, recipe, out, progress / "started"), run, shards, corpus, overwrite)


def _make_or_go_on(
    job: Job, run: dict[str, Any], shards: list[Path], corpus: dict[str, Any], overwrite: bool
) -> dict[str, Any]:
    """Makes the pairs from where an earlier run of the same job got to."""
    out, progress = job.out, job.started.parent
    if overwrite:
        start_over(out, "texts")
    require_same_run(out, job.recipe, run)
    stats = finished(out)
    if stats is not None:
        print(f"{out}: all done before, {stats['rows']:,} pairs; --overwrite makes them anew")
        return stats
    return _make(job, run, shards, corpus, progress)


def _make(job: Job, run: dict[str, Any], shards: list[Path], corpus: dict[str, Any], progress: Path) -> dict[str, Any]:
    config, out = job.config, job.out
    rmtree(job.started, ignore_errors=True)
    job.started.mkdir(parents=True)
    write_json(progress / RUN_FILE, run)  # before anything lies in `out`, or that would be taken for a stranger's
    keep_settings(config, out, "encode")
    clear(out)
    discard_uncommitted(out, progress / "ids")
    windows = list_windows(shards, config.data.shard_rows, lambda file, reason: reject_file(out, file, reason))
    held = sum(window.rows for window in windows)
    if held != corpus["rows"] and not read_rejects(out).files:
        raise ValueError(
            f"--texts {run['texts']}: its files hold {held:,} texts, but its {STATS_FILE} says {corpus['rows']:,}; "
            "files were lost or changed: make the corpus anew with jobs/corpus.py --overwrite"
        )
    clock, began = Clock(progress / "seconds.json"), time.time()
    with Watch(RowCounter(out), corpus["rows"], "encoded", clock.keep) as watch:
        if windows:
            run_pipeline(job, windows, progress / "ids")
    seconds = watch.seconds
    rejects = read_rejects(out)
    by_split = ids_by_split(out)
    splits = {split: len(found) for split, found in by_split.items()}
    rows = sum(splits.values())
    ids = distinct(by_split, out)
    require_few(rejects, len(shards), config.data.max_rejected)
    left_out = _left_out(windows, rejects.files, ids)
    refused = rejects.without(ids)
    dropped = {
        "too_few_tokens": left_out - len(refused.rows),
        "unreadable_shard": corpus["rows"] - rows - left_out,
        **refused.reasons(),
    }
    dropped = {reason: count for reason, count in dropped.items() if count}
    if rows == 0:
        raise ValueError(
            f"none of {corpus['rows']:,} texts became a pair; left out by reason: {dropped} "
            f"(data.min_tokens is {config.data.min_tokens})"
        )
    ready = min((float(path.name.partition("-")[0]) for path in job.started.iterdir()), default=began)
    start_up = max(0.0, ready - began)
    stats = {
        "rows": rows,
        "splits": splits,
        "dropped": dropped,
        "rejected_files": rejects.files,
        "seconds": round(clock.earlier + seconds, 2),
        "start_up_seconds": round(start_up, 2),
        "samples_per_second": round((rows - watch.before) / seconds, 1),
        "corpus": {name: corpus[name] for name in ("rows", "languages", "dropped", "seconds")},
        "run": run,
    }
    write_json(out / STATS_FILE, stats)
    end_provenance(out, "encode")
    (out / SUCCESS_FILE).touch()
    rmtree(progress)
    return stats


def _left_out(windows: list[Window], broken: dict[str, str], ids: np.ndarray) -> int:
    """Rows that can be read and are not among the pairs, whose ids are `ids`.

    What lies in a broken file may be there all the same, from a sitting before it broke.
    """
    if not broken:
        return sum(window.rows for window in windows) - len(ids)
    return int((~np.isin(readable_ids(windows, broken), ids)).sum())


def summary(stats: dict[str, Any], out: str) -> str:
    """What became of all texts, as lines to read."""
    splits = ", ".join(f"{split} {rows:,}" for split, rows in stats["splits"].items())
    speed = f"{duration(stats['seconds'])}, {stats['samples_per_second']:,.0f}/s with start-up"
    lines = [f"{stats['rows']:,} pairs in {out} ({splits}; {speed})"]
    if stats["dropped"]:
        lines.append(f"left out {sum(stats['dropped'].values()):,} of {stats['corpus']['rows']:,} texts:")
    lines += [f"  {reason:<18} {rows:>12,}{REASONS.get(reason, '')}" for reason, rows in stats["dropped"].items()]
    if stats["rejected_files"] or stats["dropped"].keys() - REASONS.keys():
        lines.append(f"  named in {out}/{REJECTED}, each with its reason")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Encode a corpus into pairs of (text, token ids, embedding), as the config's encoder recipe says. A text is\n"
        "cut to data.seq_len tokens first, so that its vector is that of the text which can be written again.\n\n"
        "Stopped or crashed, the same command goes on where it was; finished, it does nothing. Texts without a vector\n"
        "and shards that cannot be read are set aside in OUT/_rejected with the reason, and the others go on.",
        "examples:\n"
        "  python jobs/encode.py --config configs/minilm.yaml --texts runs/my/texts --out runs/my/pairs --dry-run\n"
        "  python jobs/encode.py --config configs/minilm.yaml --texts runs/my/texts --out runs/my/pairs\n\n"
        "  --set encoding.workers=4       as many encoders (default: one a core up to four, or one a GPU)\n"
        "  --set encoding.device=cuda     encoders on GPUs\n"
        "  --set data.shard_rows=1024     smaller steps: progress is shown, and kept, by this many rows",
    )
    add_config_arguments(parser)
    parser.add_argument("--texts", required=True, metavar="DIR", help="corpus that jobs/corpus.py made")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the pairs, to make or to go on with")
    parser.add_argument("--overwrite", action="store_true", help="delete the pairs in --out and make them anew")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing: encode 200 of the texts, and say how long all would take and how large they would be",
    )
    arguments = parser.parse_args(argv)
    config = config_from(arguments)
    texts, out = place(arguments.texts, "--texts"), place(arguments.out)
    announce(config, "encode", texts=shown(texts), out=shown(out))
    if arguments.dry_run:
        with staged(inputs=[texts]), ray_session(), TemporaryDirectory() as folder:
            job = Job(config, recipe_of(config), Path(folder), Path(folder))
            print(plan_text(plan_encoding(job, *read_corpus(texts))))
        return
    with staged(out, inputs=[texts]), ray_session(out, inputs=[texts]):
        stats = make_pairs(config, texts, out, arguments.overwrite)
    print(summary(stats, shown(out)))
    run = shown(out.parent)
    print(f"next: python jobs/train.py --config {arguments.config} --data {shown(out)} --out {run}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
