"""texts -> shards of (id, text, lang): read, cleaned, deduplicated, balanced by language.

Ray Data reads the sources; each block is cleaned where it lies, and only ids and languages travel to the driver,
which decides what stays. The folder appears whole or not at all. Vectors are made by jobs/encode.py.
"""

import argparse
import glob
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from embinv.config import Config, DataSettings
from embinv.data.corpus import drop_reason, normalise, select_rows, text_id
from embinv.data.records import BLOCK_SIZE, LANGUAGES, generate_records
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
from jobs.session import ray_session

STATS_FILE = "_stats.json"
RECORDS = "records"
UNKNOWN_LANGUAGE = "und"
SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.string())])
SHARD_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("spans", pa.list_(SPAN)),  # null where nobody labelled them
    ]
)
READERS = {
    ".parquet": ray.data.read_parquet,
    ".jsonl": ray.data.read_json,
    ".jsonl.gz": ray.data.read_json,
    ".csv": ray.data.read_csv,
    ".txt": ray.data.read_text,
}


def read_source(source: str, settings: DataSettings) -> ray.data.Dataset:
    """Opens one source lazily, as columns text, lang and spans.

    Raises:
        ValueError: nothing is there, the kind of file is unknown, or it has no text column.
    """
    if source == RECORDS:
        return _records(settings)
    kind, paths = _files(source)
    if kind == ".txt":
        dataset = ray.data.read_text(paths, drop_empty_lines=True)
        return dataset.map_batches(_as_columns, fn_args=["text"], batch_format="pyarrow")
    try:
        dataset = READERS[kind](paths)
        schema = dataset.schema()
    except (ray.exceptions.RayTaskError, pa.ArrowInvalid, OSError) as error:
        raise _unreadable(source, error) from error
    names = [] if schema is None else schema.names
    if settings.text_column not in names:
        raise ValueError(
            f"--texts {source}: no column {settings.text_column!r}, it has {', '.join(names) or 'none at all'}; "
            "name the right one with --set data.text_column=NAME"
        )
    return dataset.map_batches(_as_columns, fn_args=[settings.text_column], batch_format="pyarrow")


def _unreadable(source: str, error: Exception) -> ValueError:
    """What went wrong on a worker, without its stack."""
    cause = getattr(error, "cause", None) or error
    return ValueError(f"--texts {source}: cannot be read ({str(cause).strip().splitlines()[-1]})")


def _files(source: str) -> tuple[str, list[str]]:
    """The kind of a source's files, and their paths."""
    if "://" in source:
        paths = [source]
    elif Path(source).is_dir():
        paths = sorted(str(path) for path in Path(source).rglob("*") if path.is_file() and path.name[0] not in "._")
    else:
        paths = sorted(glob.glob(source, recursive=True))
    if not paths:
        raise ValueError(f"--texts {source}: no such file, folder or glob (or `{RECORDS}` for synthetic records)")
    kinds = {next((kind for kind in READERS if path.endswith(kind)), Path(path).suffix) for path in paths}
    if len(kinds) > 1 or not kinds <= READERS.keys():
        raise ValueError(f"--texts {source}: expected files of one kind of {', '.join(READERS)}; found {sorted(kinds)}")
    return kinds.pop(), [path if "://" in path else str(Path(path).resolve()) for path in paths]


def _as_columns(table: pa.Table, text_column: str) -> pa.Table:
    """Keeps text and lang; a source that does not know its language gets `und`."""
    text = table[text_column].cast(pa.string())
    if "lang" in table.column_names:
        lang = table["lang"].cast(pa.string()).fill_null(UNKNOWN_LANGUAGE)
    else:
        lang = pa.array([UNKNOWN_LANGUAGE] * len(table), pa.string())
    spans = pa.nulls(len(table), pa.list_(SPAN))
    return pa.table({"text": text, "lang": lang, "spans": spans})


def _records(settings: DataSettings) -> ray.data.Dataset:
    """The embedded generator, one task a block; a fifth more than asked for makes up for duplicates."""
    languages = settings.languages or list(LANGUAGES)
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown:
        raise ValueError(
            f"data.languages: `records` does not speak {', '.join(unknown)}; it has {', '.join(LANGUAGES)}"
        )
    blocks = -(-int((settings.rows or 10_000) * 1.2) // (BLOCK_SIZE * len(languages)))
    tasks = [{"lang": lang, "block": block} for lang in languages for block in range(blocks)]
    dataset = ray.data.from_items(tasks, override_num_blocks=min(len(tasks), 8))
    return dataset.map_batches(_generate, fn_args=[settings.seed], batch_size=8, batch_format="pyarrow")


def _generate(tasks: pa.Table, seed: int) -> pa.Table:
    records = [record for task in tasks.to_pylist() for record in generate_records(task["lang"], task["block"], seed)]
    spans = [[{"start": s.start, "end": s.end, "label": s.label} for s in record.spans] for record in records]
    return pa.table(
        {
            "text": [record.text for record in records],
            "lang": [record.lang for record in records],
            "spans": pa.array(spans, pa.list_(SPAN)),
        }
    )


def clean(table: pa.Table, settings: DataSettings) -> pa.Table:
    """Adds id and `dropped`, the reason why a row will not be kept (null where it will)."""
    texts, reasons, ids = [], [], []
    for text, lang in zip(table["text"].to_pylist(), table["lang"].to_pylist(), strict=True):
        cleaned = normalise(text or "")
        reason = drop_reason(cleaned, settings.min_chars, settings.max_chars)
        if reason is None and settings.languages and lang not in (*settings.languages, UNKNOWN_LANGUAGE):
            reason = f"language_{lang}"
        texts.append(cleaned if reason is None else "")
        reasons.append(reason)
        ids.append(text_id(cleaned))
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "text": texts,
            "lang": table["lang"],
            "spans": table["spans"],
            "dropped": pa.array(reasons, pa.string()),
        }
    )


@ray.remote
def _survey(block: pa.Table) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
    """Ids and languages of a block's good rows, and why the others go."""
    good = block.filter(block["dropped"].is_null())
    reasons = Counter(reason for reason in block["dropped"].to_pylist() if reason is not None)
    return good["id"].to_numpy(), np.asarray(good["lang"].to_pylist(), dtype=object), reasons


@ray.remote
def _write(block: pa.Table, keep: np.ndarray, folder: str, number: int, shard_rows: int) -> int:
    """Writes a block's chosen rows in files of at most `shard_rows`."""
    good = block.filter(block["dropped"].is_null()).drop_columns(["dropped"])
    chosen = good.filter(pa.array(keep)).select(SHARD_SCHEMA.names).cast(SHARD_SCHEMA)
    for part, start in enumerate(range(0, len(chosen), shard_rows)):
        pq.write_table(chosen.slice(start, shard_rows), f"{folder}/part-{number:05d}-{part:04d}.parquet")
    return len(chosen)


def make_corpus(config: Config, out: Path) -> dict[str, Any]:
    """Runs the job in an open Ray session; returns the statistics that it also writes.

    Raises:
        ValueError: a source cannot be read, nothing is left after cleaning, or `out` holds another corpus.
    """
    settings = config.data
    wanted = settings.model_dump(mode="json")
    if (out / STATS_FILE).is_file():
        return _finished(out, wanted)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out}: is not empty and holds no corpus of ours; choose another folder")
    began = time.monotonic()
    ray.data.DataContext.get_current().execution_options.preserve_order = True  # so that "first" means something
    sources = [read_source(source, settings) for source in settings.sources]
    dataset = sources[0].union(*sources[1:]) if len(sources) > 1 else sources[0]
    try:
        refs = dataset.map_batches(clean, fn_args=[settings], batch_format="pyarrow").to_arrow_refs()
    except ray.exceptions.RayTaskError as error:
        raise _unreadable(" ".join(settings.sources), error) from error
    surveys = ray.get([_survey.remote(ref) for ref in refs])
    ids = np.concatenate([np.zeros(0, dtype=np.int64), *(survey[0] for survey in surveys)])  # an empty file: no block
    langs = np.concatenate([np.zeros(0, dtype=object), *(survey[1] for survey in surveys)])
    dropped = sum((survey[2] for survey in surveys), Counter())
    read = len(ids) + dropped.total()
    if len(ids) == 0:
        raise ValueError(f"none of {read} texts is left; dropped by reason: {dict(dropped)}")
    print(f"read {read:,} texts, {len(ids):,} are of good length and language", flush=True)
    keep = select_rows(ids, langs.astype(str), settings.rows, settings.seed)
    dropped["duplicate"] = len(ids) - len(np.unique(ids))
    dropped["over_quota"] = len(ids) - dropped["duplicate"] - int(keep.sum())

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    ends = np.cumsum([len(survey[0]) for survey in surveys])[:-1]
    writes = [
        _write.remote(ref, part, str(partial), number, settings.shard_rows)
        for number, (ref, part) in enumerate(zip(refs, np.split(keep, ends), strict=True))
    ]
    written = sum(ray.get(writes))
    assert written == int(keep.sum())
    stats = {
        "rows": written,
        "languages": dict(Counter(langs[keep].tolist()).most_common()),
        "read": read,
        "dropped": {reason: count for reason, count in dropped.most_common() if count},
        "seconds": round(time.monotonic() - began, 2),
        "data": wanted,
    }
    keep_settings(config, partial, "corpus")
    write_json(partial / STATS_FILE, stats)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        out.rmdir()  # it was empty
    partial.rename(out)
    return stats


def _finished(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The statistics of a corpus that is there already, if it is the one that is wanted."""
    from json import loads

    stats = loads((out / STATS_FILE).read_text(encoding="utf-8"))
    differing = [name for name in wanted if stats["data"].get(name) != wanted[name] and name in TEXT_FIELDS]
    if differing:
        raise ValueError(
            f"--out {out}: holds a corpus made with another data.{differing[0]} "
            f"({stats['data'].get(differing[0])!r}, not {wanted[differing[0]]!r}); choose another folder or delete it"
        )
    print(f"{out}: all done before, {stats['rows']:,} texts")
    return stats


TEXT_FIELDS = ("sources", "text_column", "languages", "rows", "min_chars", "max_chars", "seed")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = job_parser(
        "Make shards of (id, text, lang) from texts: cleaned, deduplicated, balanced by language.",
        "example:\n  python jobs/corpus.py --config configs/minilm.yaml --texts notes.txt 'mail/*.jsonl' "
        "--out runs/my/texts",
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--texts",
        nargs="+",
        metavar="SRC",
        help="text files (one text a line), .jsonl, .csv, .parquet with a `text` column (and `lang` if it knows), "
        "folders, globs, URIs, or `records` for synthetic ones; default: data.sources of the config",
    )
    parser.add_argument("--rows", type=int, metavar="N", help="texts at most, in equal shares by language")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    arguments: argparse.Namespace = parser.parse_args(argv)
    config = config_from(arguments, [] if arguments.rows is None else [f"data.rows={arguments.rows}"])
    if arguments.texts:
        config.data.sources = arguments.texts
        if arguments.rows is None and not any(o.startswith("data.rows=") for o in arguments.overrides):
            config.data.rows = None  # the config's number is for its own sources
    out = output_folder(arguments.out)
    announce(config, "corpus", texts=" ".join(config.data.sources), out=out)
    with ray_session():
        stats = make_corpus(config, out)
    print(f"{stats['rows']:,} texts in {out} ({stats['seconds']:.0f} s); dropped by reason: {stats['dropped']}")
    print(f"next: python jobs/encode.py --config {arguments.config} --texts {out} --out {out.parent / 'pairs'}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
