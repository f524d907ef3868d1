"""texts -> shards of (id, text, lang): read, cleaned, deduplicated, shared out by language, shuffled.

Files, folders, globs and URIs, C4 and mC4 on the hub, or synthetic records. Ray Data reads and cleans them where they
are (jobs/texts.py), as much as is needed (jobs/supplies.py); the driver sees ids and languages and decides what stays
(jobs/selection.py). The folder appears whole or not at all. Vectors are made by jobs/encode.py.
"""

import argparse
import hashlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from json import loads
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from embinv.config import Config
from embinv.data.settings import DataSettings, TextSource
from embinv.data.sole_writer import sole_writer
from embinv.data.sources import SourceFile
from jobs.arguments import (
    add_config_arguments,
    announce,
    config_from,
    job_parser,
    keep_settings,
    run_job,
    write_json,
)
from jobs.corpus_plan import plan_corpus, plan_text
from jobs.failures import told_plainly
from jobs.outputs import STATS_FILE, SUCCESS_FILE, put_in_place, require_ours, require_siblings
from jobs.progress import Watch, duration
from jobs.provenance import end_provenance
from jobs.rejects import read_rejects, require_few
from jobs.selection import Choice, choose, survey
from jobs.session import ray_session
from jobs.shuffle import write_shards
from jobs.staging import place, shown, staged
from jobs.supplies import Supply, next_wave, open_supplies
from jobs.texts import CLEANED_SCHEMA, FOUND, Piece, TextPieces, rows_given

SHARD_SCHEMA = CLEANED_SCHEMA.remove(CLEANED_SCHEMA.get_field_index("dropped"))
# What decides which texts come out, and in which order.
TEXT_FIELDS = (
    "sources text_column languages shares rows min_chars max_chars near_duplicates language_check seed".split()
)
REASONS = {  # as a reader of the statistics would ask
    "empty": "nothing but spaces",
    "too_short": "under data.min_chars characters",
    "too_long": "over data.max_chars characters",
    "language_mismatch": "py3langid reads another language than the row names",
    "duplicate": "the same text stands elsewhere, up to case and spaces",
    "near_duplicate": "almost the same text stands elsewhere",
    "over_quota": "read, and more than the rows wanted of its language",
}


class Reading:
    """The blocks that were read so far, and what is to be made of them."""

    def __init__(self, settings: DataSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.blocks: list[ray.ObjectRef] = []
        self.surveys: list[ray.ObjectRef] = []
        self.signatures: list[ray.ObjectRef] = []
        self.files: set[str] = set()

    def read(self, pieces: list[Piece]) -> None:
        """Reads and cleans a wave of pieces by Ray Data."""
        source = TextPieces(pieces, self.settings, self.folder)
        blocks = ray.data.read_datasource(source, override_num_blocks=len(pieces)).to_arrow_refs()
        self.blocks += blocks
        for block in blocks:
            surveyed, signed = survey.remote(block, self.settings.near_duplicates, self.settings.seed)
            self.surveys.append(surveyed)
            self.signatures.append(signed)
        self.files |= {piece.source.url for piece in pieces if isinstance(piece.source, SourceFile)}

    def choose(self) -> Choice:
        """Which rows stay, as far as was read."""
        return choose(ray.get(self.surveys), self.signatures, self.settings)

    def write(self, choice: Choice, shard_rows: int) -> int:
        """Writes the chosen rows in their shuffled order, `shard_rows` a file; returns how many there were."""
        sizes = [len(found.ids) for found in ray.get(self.surveys)]
        parts = np.split(choice.order, np.cumsum(sizes)[:-1])
        return write_shards(self.blocks, parts, SHARD_SCHEMA, self.folder, shard_rows)


def make_corpus(config: Config, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Runs the job in an open Ray session; returns the statistics that it also writes.

    Args:
        config: of the run; its `data` section counts.
        out: folder to make.
        overwrite: delete a corpus that is there; it stays until the new one is whole.

    Raises:
        ValueError: a source cannot be read, nothing is left after cleaning, too many files are damaged, or `out` holds
            another corpus.
    """
    wanted = config.data.model_dump(mode="json")
    if overwrite:
        require_ours(out, _is_shard)
    elif (out / SUCCESS_FILE).is_file():
        return _finished(out, wanted)
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out}: is not empty and holds no corpus of ours; choose another folder")
    require_siblings(out)
    with told_plainly(out), sole_writer(out):
        return _make_beside(config, out, wanted)


def _make_beside(config: Config, out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Makes the corpus under a hidden name and puts it in place when it is whole."""
    began = time.monotonic()
    supplies = open_supplies(config.data)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / FOUND).mkdir(parents=True)
    try:
        keep_settings(config, partial, "corpus")
        stats = _make(config, supplies, partial)
        stats |= {"seconds": round(time.monotonic() - began, 2), "data": wanted}
        write_json(partial / STATS_FILE, stats)
        end_provenance(partial, "corpus")
        (partial / SUCCESS_FILE).touch()
        put_in_place(partial, out, _is_shard)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # what an error or Ctrl-C leaves
    return stats


def _digest(partial: Path) -> str:
    """Names a corpus by its content: a hash of its shards."""
    found = hashlib.blake2b(digest_size=16)
    for shard in sorted(path for path in partial.iterdir() if _is_shard(path)):
        found.update(shard.read_bytes())
    return found.hexdigest()


def _is_shard(path: Path) -> bool:
    return path.name.startswith("part-") and path.suffix == ".parquet"


def _make(config: Config, supplies: list[Supply], partial: Path) -> dict[str, Any]:
    settings = config.data
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True  # so that "first" means something
    with ray.data.DataContext.current(context):
        reading, choice = _read_enough(supplies, settings, partial)
        rejects = read_rejects(partial)
        require_few(rejects, len(reading.files), settings.max_rejected)
        rows = int(choice.keep.sum())
        read = len(choice.keep) + choice.dropped.total() - _of_good_rows(choice.dropped)
        dropped = {reason: count for reason, count in choice.dropped.most_common() if count}
        if rows == 0:
            raise ValueError(f"none of {read:,} texts is left; dropped by reason: {dropped}")
        where = f" of {len(reading.files):,} file(s)" if reading.files else ""
        print(f"read {read:,} texts{where}, {rows:,} stay; writing them", flush=True)
        written = reading.write(choice, settings.shard_rows)
    assert written == rows, (written, rows)
    shutil.rmtree(partial / FOUND)
    return {
        "rows": rows,
        "shards": sum(_is_shard(path) for path in partial.iterdir()),
        "digest": _digest(partial),
        "languages": dict(Counter(choice.langs[choice.keep].tolist()).most_common()),
        "read": read,
        "files": len(reading.files),
        "dropped": dropped,
        "rejected_files": rejects.files,
    }


def _of_good_rows(dropped: Mapping[str, int]) -> int:
    """Rows that were good by themselves and went for the sake of others."""
    return sum(dropped.get(reason, 0) for reason in ("duplicate", "near_duplicate", "over_quota"))


def _read_enough(supplies: list[Supply], settings: DataSettings, partial: Path) -> tuple[Reading, Choice]:
    """Reads waves of pieces until every language has its share or nothing is left."""
    reading = Reading(settings, partial)
    known = all(supply.lang is not None and supply.want is not None for supply in supplies)
    total = sum(supply.want or 0 for supply in supplies) if known else None
    found: Mapping[str, int] = {}
    with Watch(lambda: _found(partial), total, "found", lambda seconds: None):
        while pieces := next_wave(supplies, settings, found, lambda url: rows_given(partial, url)):
            reading.read(pieces)
            choice = reading.choose()
            found = choice.found
    return reading, choice


def _found(partial: Path) -> int:
    """Good rows read so far, copies included."""
    counts = [path.read_text() for path in (partial / FOUND).iterdir()]
    return sum(int(count) for count in counts if count)


def _finished(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The statistics of a corpus that is there already, if it is the one that is wanted."""
    stats = loads((out / STATS_FILE).read_text(encoding="utf-8"))
    if "data" not in stats:
        raise ValueError(f"--out {out}: is not empty and holds no corpus of ours; choose another folder")
    differing = [name for name in TEXT_FIELDS if stats["data"].get(name) != wanted[name]]
    if differing:
        raise ValueError(
            f"--out {out}: holds a corpus made with another data.{differing[0]} "
            f"({stats['data'].get(differing[0])!r}, not {wanted[differing[0]]!r}); choose another folder, or give "
            "--overwrite to make it anew"
        )
    print(f"{out}: all done before, {stats['rows']:,} texts; --overwrite makes them anew")
    return stats


def summary(stats: dict[str, Any], out: str) -> str:
    """What became of all that was read, as lines to read."""
    languages = ", ".join(f"{lang} {rows:,}" for lang, rows in stats["languages"].items())
    lines = [f"{stats['rows']:,} texts in {out} ({languages}; {duration(stats['seconds'])})"]
    if stats["dropped"]:
        lines.append(f"dropped {sum(stats['dropped'].values()):,} of {stats['read']:,} that were read:")
    for reason, rows in stats["dropped"].items():
        lines.append(f"  {reason:<18} {rows:>12,}  {REASONS.get(reason, 'a language that data.languages lacks')}")
    for file, reason in stats["rejected_files"].items():
        lines.append(f"damaged, and only read up to there: {file} ({reason})")
    return "\n".join(lines)


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
        help="text files (one text a line), .jsonl, .csv, .parquet with a `text` column (and `lang` if it knows), .gz "
        "and .zst of them, folders, globs, s3://, gs:// or hf:// URIs ({lang}: each of data.languages), or "
        "`records` for synthetic ones; default: data.sources of the config",
    )
    parser.add_argument("--rows", type=int, metavar="N", help="texts at most, shared by language")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="delete the corpus in --out and make it anew")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="list what would be read, and judge it by 200 rows of each language",
    )
    arguments: argparse.Namespace = parser.parse_args(argv)
    config = config_from(arguments, [] if arguments.rows is None else [f"data.rows={arguments.rows}"])
    if arguments.texts:
        config.data.sources = [TextSource(path=path) for path in arguments.texts]
        if arguments.rows is None and not any(o.startswith("data.rows=") for o in arguments.overrides):
            config.data.rows = None  # the config's number is for its own sources
    out = place(arguments.out)
    announce(config, "corpus", texts=" ".join(source.path for source in config.data.sources), out=shown(out))
    if arguments.dry_run:
        print(plan_text(plan_corpus(config.data)))
        return
    with staged(out), ray_session(out):
        stats = make_corpus(config, out, arguments.overwrite)
    print(summary(stats, shown(out)))
    texts, pairs = shown(out), shown(out.with_name("pairs"))
    print(f"next: python jobs/encode.py --config {arguments.config} --texts {texts} --out {pairs}")


if __name__ == "__main__":
    run_job(lambda: main(sys.argv[1:]))
