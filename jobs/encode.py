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
import pyarrow.parquet as pq

from embinv.config import Config
from embinv.data.alignment import TextTokenizer
from embinv.data.schema import PairsRecipe, read_recipe, require_same_recipe
from jobs.arguments import (
    add_config_arguments,
    announce,
    config_from,
    job_parser,
    keep_settings,
    output_folder,
    run_job,
    write_json,
)
from jobs.encode_pipeline import Job, run_pipeline
from jobs.encode_plan import plan_encoding, plan_text
from jobs.failures import told_plainly
from jobs.outputs import STATS_FILE, SUCCESS_FILE, delete_ours
from jobs.progress import RowCounter, Watch
from jobs.rejects import clear, read_rejects, reject_file, require_few
from jobs.session import ray_session
from jobs.shards import list_windows


def recipe_of(config: Config) -> PairsRecipe:
    """The recipe that a config asks for; loads the tokenizer."""
    tokenizer = TextTokenizer(config.tokenizer, trust_remote_code=config.encoder.trust_remote_code)
    return PairsRecipe(
        encoder=config.encoder,
        tokenizer=config.tokenizer,
        tokenizer_hash=tokenizer.fingerprint(),
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        seq_len=config.data.seq_len,
    )


def read_corpus(texts: Path) -> tuple[dict[str, Any], list[Path]]:
    """The statistics and the shards of a finished corpus.

    Raises:
        ValueError: there is none.
    """
    shards = sorted(texts.glob("*.parquet"))
    if not shards or not (texts / STATS_FILE).is_file():
        raise ValueError(f"--texts {texts}: holds no finished corpus; make one with jobs/corpus.py --out {texts}")
    return loads((texts / STATS_FILE).read_text(encoding="utf-8")), shards


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
    progress = out.with_name(f".{out.name}.progress")
    run = _run_of(config, recipe, texts, corpus)
    if overwrite:
        delete_ours(out, lambda path: path.name.startswith("split="))
    _require_same_run(out, progress, recipe, run)
    if (out / SUCCESS_FILE).is_file():
        stats = loads((out / STATS_FILE).read_text(encoding="utf-8"))
        print(f"{out}: all done before, {stats['rows']:,} pairs; --overwrite makes them anew")
        return stats
    with told_plainly(out):
        return _make(Job(config, recipe, out, progress / "started"), run, shards, corpus, progress)


def _make(job: Job, run: dict[str, Any], shards: list[Path], corpus: dict[str, Any], progress: Path) -> dict[str, Any]:
    config, out = job.config, job.out
    rmtree(job.started, ignore_errors=True)
    job.started.mkdir(parents=True)
    write_json(progress / "run.json", run)  # before anything lies in `out`, or that would be taken for a stranger's
    keep_settings(config, out, "encode")
    clear(out)
    windows = list_windows(shards, config.data.shard_rows, lambda file, reason: reject_file(out, file, reason))
    clock = progress / "seconds.json"
    earlier = loads(clock.read_text(encoding="utf-8")) if clock.is_file() else 0.0
    began = time.time()
    with Watch(
        RowCounter(out), corpus["rows"], "encoded", lambda seconds: write_json(clock, round(earlier + seconds, 2))
    ) as watch:
        if windows:
            run_pipeline(job, windows, progress / "ids")
    seconds = watch.seconds
    rejects = read_rejects(out)
    splits = {folder.name.removeprefix("split="): RowCounter(folder)() for folder in sorted(out.glob("split=*"))}
    rows = sum(splits.values())
    _require_unique(out, rows)
    write_json(clock, round(earlier + seconds, 2))
    require_few(rejects, len(shards), config.data.max_rejected)
    unreadable = corpus["rows"] - sum(window.rows for window in windows if window.file not in rejects.files)
    short = corpus["rows"] - rows - len(rejects.rows) - unreadable
    if rows == 0:
        raise ValueError(f"none of {corpus['rows']} texts has data.min_tokens ({config.data.min_tokens}) tokens")
    ready = min((float(path.name.partition("-")[0]) for path in job.started.iterdir()), default=began)
    start_up = max(0.0, ready - began)
    dropped = {"too_few_tokens": short, "unreadable_shard": unreadable, **rejects.reasons()}
    stats = {
        "rows": rows,
        "splits": splits,
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "rejected_files": rejects.files,
        "seconds": round(seconds + earlier, 2),
        "start_up_seconds": round(start_up, 2),
        "samples_per_second": round((rows - watch.before) / seconds, 1),
        "corpus": {name: corpus[name] for name in ("rows", "languages", "dropped", "seconds")},
        "run": run,
    }
    write_json(out / STATS_FILE, stats)
    (out / SUCCESS_FILE).touch()
    rmtree(progress)
    return stats


def _require_unique(out: Path, rows: int) -> None:
    """Our own promise, checked at the end of each run: no id stands twice."""
    ids = [pq.read_table(file, columns=["id"], partitioning=None)["id"].to_numpy() for file in out.rglob("*.parquet")]
    distinct = len(np.unique(np.concatenate(ids))) if ids else 0
    assert distinct == rows, f"{rows - distinct} ids stand twice in {out}"


def _run_of(config: Config, recipe: PairsRecipe, texts: Path, corpus: dict[str, Any]) -> dict[str, Any]:
    """All that decides which pairs come out."""
    return {
        "texts": str(texts),
        "corpus": {"rows": corpus["rows"], "data": corpus["data"]},
        "data": config.data.model_dump(mode="json", include={"min_tokens", "validation", "test"}),
        "recipe": recipe.model_dump(mode="json"),
    }


def _require_same_run(out: Path, progress: Path, recipe: PairsRecipe, run: dict[str, Any]) -> None:
    """Refuses to mix pairs of two recipes, two corpora or two ways to divide them in one folder."""
    if not out.exists() or not any(out.iterdir()):
        rmtree(progress, ignore_errors=True)  # left by a run whose output is gone: its ids would be skipped
        return
    if (out / SUCCESS_FILE).is_file():
        earlier = loads((out / STATS_FILE).read_text(encoding="utf-8"))["run"]
        require_same_recipe(read_recipe(out), recipe, out, "the config")
    elif (progress / "run.json").is_file():
        earlier = loads((progress / "run.json").read_text(encoding="utf-8"))
        require_same_recipe(PairsRecipe.model_validate(earlier["recipe"]), recipe, out, "the config")
    else:
        raise ValueError(f"--out {out}: is not empty and holds no pairs of ours; choose another folder")
    wanted = _flat({name: run[name] for name in ("texts", "corpus", "data")})
    found = _flat({name: earlier[name] for name in ("texts", "corpus", "data")})
    differing = [name for name in wanted if wanted[name] != found.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"--out {out}: was made with {name} = {found.get(name)!r}, not {wanted[name]!r}; choose another folder, or "
            "give --overwrite to make it anew"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as `section.key: value`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Encode shards of texts into pairs of (text, token ids, embedding). Run it again after a crash: it goes on.",
        "example:\n  python jobs/encode.py --config configs/minilm.yaml --texts runs/my/texts --out runs/my/pairs",
    )
    add_config_arguments(parser)
    parser.add_argument("--texts", required=True, metavar="DIR", help="shards that jobs/corpus.py made")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the pairs")
    parser.add_argument("--overwrite", action="store_true", help="delete the pairs in --out and make them anew")
    parser.add_argument(
        "--dry-run", action="store_true", help="encode 200 texts, say how long all would take and how big it would be"
    )
    arguments = parser.parse_args(argv)
    config = config_from(arguments)
    texts, out = output_folder(arguments.texts, "--texts"), output_folder(arguments.out)
    announce(config, "encode", texts=texts, out=out)
    with ray_session():
        if arguments.dry_run:
            with TemporaryDirectory() as folder:
                job = Job(config, recipe_of(config), Path(folder), Path(folder))
                print(plan_text(plan_encoding(job, *read_corpus(texts))))
            return
        stats = make_pairs(config, texts, out, arguments.overwrite)
    print(
        f"{stats['rows']:,} pairs in {out}: {stats['splits']}, {stats['samples_per_second']}/s; dropped by reason: "
        f"{stats['dropped']}"
    )
    print(f"next: python jobs/train.py --config {arguments.config} --data {out} --out {out.parent}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
