"""What making a corpus will take, from the listing of its sources and a trial of 200 rows of each (`--dry-run`).

The trial reads, cleans, signs and writes (into memory) as the job does, in one process. Sizes of whole files are the
store's; how many texts lie in them is estimated from the texts of the trial, compressed where the file is.
"""

import math
import os
import time
import zlib
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from embinv.data.near_duplicates import signatures
from embinv.data.reading import read_batches
from embinv.data.settings import DataSettings
from embinv.data.sources import SourceFile
from jobs.progress import duration
from jobs.selection import NUM_PERM
from jobs.shards import SHARD_PARQUET
from jobs.supplies import SPARE, Supply, open_supplies
from jobs.texts import CLEANED_SCHEMA, clean, record_tables

TRIAL_ROWS = 200


@dataclass(frozen=True)
class Plan:
    """What one language, or files that name none, will take.

    Attributes:
        lang: language, or `by row`.
        files: how many there are; 0 for synthetic records.
        size: their bytes.
        files_read: how many of them will be opened, about.
        trial_rows: texts of the trial.
        good_share: share of them that stays after cleaning, copies included.
        rows_read: texts to read, about; None if nothing was found to judge by.
        rows: texts of the corpus, about.
        output: bytes of the corpus, about.
        seconds: of work for one core, about, without the way to the files.
        first_seconds: until the trial's texts were there.
    """

    lang: str
    files: int
    size: int
    files_read: int
    trial_rows: int
    good_share: float
    rows_read: int | None
    rows: int
    output: float
    seconds: float
    first_seconds: float


def plan_corpus(settings: DataSettings) -> list[Plan]:
    """One plan a language.

    Raises:
        ValueError: a source cannot be read.
    """
    return [_plan(supply, settings) for supply in open_supplies(settings)]


def _plan(supply: Supply, settings: DataSettings) -> Plan:
    files = [source for source in supply.sources if isinstance(source, SourceFile)]
    size = sum(file.size or 0 for file in files)
    began = time.perf_counter()
    first = supply.sources[0]
    tables = (
        read_batches(first, settings.text_column, TRIAL_ROWS)
        if isinstance(first, SourceFile)
        else record_tables(first, settings.seed)
    )
    read = list(islice(tables, 1))
    tables.close()  # type: ignore[attr-defined]
    first_seconds = time.perf_counter() - began
    trial = pa.concat_tables(read).slice(0, TRIAL_ROWS) if read else CLEANED_SCHEMA.empty_table()
    if not len(trial):
        return Plan(supply.lang or "by row", len(files), size, len(files), 0, 0, None, 0, 0, 0, first_seconds)

    clean(trial.slice(0, 1), settings)  # the language check loads its model
    began = time.perf_counter()
    cleaned = clean(trial, settings)
    good = cleaned.filter(cleaned["dropped"].is_null())
    if settings.near_duplicates is not None and len(good):
        signatures(good["text"].to_pylist(), NUM_PERM, settings.seed)
    output = _shard_bytes(good) / max(1, len(good))
    each = (time.perf_counter() - began) / len(trial)

    share = len(good) / len(trial)
    there = size / _bytes_in_file(trial, files[0]) if files and size else None
    if not files:
        each += first_seconds / len(read[0])  # records are made, not fetched
    if supply.want is None:
        rows_read = None if there is None else round(there)
    else:
        rows_read = math.ceil(supply.want * SPARE / max(share, 1 / len(trial)))
        rows_read = rows_read if there is None else min(rows_read, round(there))
    limits = [limit for limit in (supply.want, settings.rows) if limit is not None]
    rows = min([round((rows_read or 0) * share), *limits])
    return Plan(
        lang=supply.lang or "by row",
        files=len(files),
        size=size,
        files_read=math.ceil(len(files) * min(1, (rows_read or 0) / there)) if there else 0,
        trial_rows=len(trial),
        good_share=share,
        rows_read=rows_read,
        rows=rows,
        output=rows * output,
        seconds=(rows_read or 0) * each,
        first_seconds=first_seconds,
    )


def _shard_bytes(good: pa.Table) -> int:
    """Bytes of these rows in a shard, without what every file has."""
    schema = CLEANED_SCHEMA.remove(CLEANED_SCHEMA.get_field_index("dropped"))
    sizes = []
    for table in (good, good.slice(0, 0)):
        sink = pa.BufferOutputStream()
        pq.write_table(table.select(schema.names).cast(schema), sink, **SHARD_PARQUET)
        sizes.append(sink.getvalue().size)
    return sizes[0] - sizes[1]


def _bytes_in_file(trial: pa.Table, file: SourceFile) -> float:
    """Bytes of a text in a file of this kind, about: its other columns or keys are not counted."""
    text = "\n".join(value or "" for value in trial["text"].to_pylist()).encode()
    packed = file.kind.endswith((".gz", ".zst", ".parquet"))
    return max(1, len(zlib.compress(text) if packed else text)) / len(trial)


def plan_text(plan: list[Plan]) -> str:
    """The plan as lines to read."""
    rows = [("language", "good in trial", "texts to read", "files", "of", "size of all", "rows", "output")]
    for part in plan:
        rows.append(
            (
                part.lang,
                f"{part.good_share:.0%} of {part.trial_rows}",
                "?" if part.rows_read is None else f"~{part.rows_read:,}",
                f"~{part.files_read:,}" if part.files else "-",
                f"{part.files:,}" if part.files else "-",
                _megabytes(part.size) if part.files else "made here",
                f"~{part.rows:,}",
                f"~{_megabytes(part.output)}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    cores = os.cpu_count() or 1
    busy = max(1, min(cores, sum(max(1, part.files_read) for part in plan)))  # a file is read by one core
    work, reaching = sum(part.seconds for part in plan), sum(part.first_seconds for part in plan)
    lines.append(
        f"in all about {sum(part.rows for part in plan):,} rows, {_megabytes(sum(part.output for part in plan))}, and "
        f"{duration(work / busy)} of work on {busy} of {cores} cores here, beside the download and the start of Ray"
    )
    lines.append(f"reaching the sources took {duration(reaching)}; nothing was written")
    return "\n".join(lines)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
