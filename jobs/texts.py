"""Texts as a Ray Data source: one read task for each file, cleaned where it is read, and no more of it than is needed.

A piece is a file or a few blocks of synthetic records, with the number of good rows after which its task stops: of a
remote file only the beginning is downloaded then. A damaged file gives the rows before the damage and is noted
(jobs/rejects.py). Which rows a corpus takes is decided elsewhere (jobs/selection.py).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from embinv.data.corpus import DROP_REASONS, clean_batch
from embinv.data.language import disagrees
from embinv.data.reading import UNKNOWN_LANGUAGE, UnreadableFile, read_batches
from embinv.data.records import generate_records
from embinv.data.settings import DataSettings
from embinv.data.sources import SourceFile
from jobs.rejects import reject_file

SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.string())])
CLEANED_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("lang", pa.string()),
        ("spans", pa.list_(SPAN)),  # null where nobody labelled them
        ("dropped", pa.string()),  # why a row will not be kept, null where it may
    ]
)
FOUND = ".found"  # folder of one file a piece, which holds its number of good rows so far
RECORDS_AT_ONCE = 8  # blocks of synthetic records in one piece


@dataclass(frozen=True)
class RecordBlocks:
    """Some blocks of synthetic records in one language, as if they were a file."""

    lang: str
    number: int

    @property
    def url(self) -> str:
        """What progress and errors call it."""
        return f"records/{self.lang}/{self.number}"


@dataclass(frozen=True)
class Piece:
    """What one task reads.

    Attributes:
        source: a file or synthetic records.
        want: good rows after which it stops; None reads all.
        after: good rows at its beginning that were read before, and are not given again.
    """

    source: SourceFile | RecordBlocks
    want: int | None
    after: int = 0


def clean(table: pa.Table, settings: DataSettings) -> pa.Table:
    """Cleans texts and says why some of them will not be kept; a row that is dropped keeps no text."""
    texts, ids, codes = clean_batch(table["text"], settings.min_chars, settings.max_chars)
    langs = table["lang"].to_numpy(zero_copy_only=False)
    reasons = np.array(DROP_REASONS, dtype=object)[codes]
    if settings.languages:
        foreign = (codes == 0) & ~np.isin(langs.astype(str), [*settings.languages, UNKNOWN_LANGUAGE])
        reasons[foreign] = [f"language_{lang}" for lang in langs[foreign]]
    if settings.language_check:
        rows = np.flatnonzero(reasons == None)  # noqa: E711
        wrong = disagrees(texts.take(pa.array(rows)).to_pylist(), langs[rows].tolist())
        reasons[rows[wrong]] = "language_mismatch"
    dropped = pa.array(reasons, pa.string())
    spans = table["spans"] if "spans" in table.column_names else pa.nulls(len(table), pa.list_(SPAN))
    kept = pc.if_else(dropped.is_null(), texts, "")
    return pa.table([pa.array(ids), kept, table["lang"], spans, dropped], schema=CLEANED_SCHEMA)


def record_tables(blocks: RecordBlocks, seed: int) -> Iterator[pa.Table]:
    """The records of a piece, a block at a time."""
    first = blocks.number * RECORDS_AT_ONCE
    for block in range(first, first + RECORDS_AT_ONCE):
        records = generate_records(blocks.lang, block, seed)
        spans = [[{"start": s.start, "end": s.end, "label": s.label} for s in record.spans] for record in records]
        texts, langs = [record.text for record in records], [record.lang for record in records]
        yield pa.table({"text": texts, "lang": langs, "spans": pa.array(spans, pa.list_(SPAN))})


def read_piece(piece: Piece, settings: DataSettings, folder: Path) -> Iterator[pa.Table]:
    """Yields the cleaned rows of a piece until enough of them are good.

    Args:
        piece: what to read.
        settings: how to clean.
        folder: where a damaged file is noted, and how many good rows this piece has given so far.
    """
    good = 0
    source = piece.source
    last = None if piece.want is None else piece.after + piece.want
    counter = folder / FOUND / _counter_name(source.url)
    if isinstance(source, RecordBlocks):
        tables = record_tables(source, settings.seed)
    else:
        tables = read_batches(source, settings.text_column)
    try:
        for table in tables:
            cleaned = clean(table, settings)
            fine = np.flatnonzero(cleaned["dropped"].is_null().to_numpy())
            start, stop = 0, len(cleaned)
            if good < piece.after:
                start = int(fine[piece.after - good - 1]) + 1 if good + len(fine) >= piece.after else stop
            if last is not None and good + len(fine) >= last:
                stop = int(fine[last - good - 1]) + 1
            good += int((fine < stop).sum())
            if good >= piece.after:
                counter.write_text(str(good))
            yield cleaned.slice(start, stop - start)
            if last is not None and good >= last:
                return
    except UnreadableFile as error:
        reject_file(folder, error.url, error.reason)
    finally:
        tables.close()  # type: ignore[attr-defined]
    yield CLEANED_SCHEMA.empty_table()


def rows_given(folder: Path, url: str) -> int:
    """Good rows that were read of a file so far, copies included; 0 if none was."""
    counter = folder / FOUND / _counter_name(url)
    return int(counter.read_text() or 0) if counter.exists() else 0


def _counter_name(url: str) -> str:
    return hashlib.blake2b(url.encode(), digest_size=8).hexdigest()


class TextPieces(Datasource):
    """Pieces of text, one read task each."""

    def __init__(self, pieces: list[Piece], settings: DataSettings, folder: Path) -> None:
        super().__init__()
        self.pieces, self.settings, self.folder = pieces, settings, folder

    def estimate_inmemory_data_size(self) -> int | None:
        """Nobody knows how much of a file will be read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object | None = None
    ) -> list[ReadTask]:
        """One task for each piece, whatever `parallelism` says."""
        return [
            ReadTask(
                partial(read_piece, piece, self.settings, self.folder),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=[piece.source.url], exec_stats=None),
                schema=CLEANED_SCHEMA,
                per_task_row_limit=per_task_row_limit,
            )
            for piece in self.pieces
        ]
