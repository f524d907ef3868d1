"""Vectors in Parquet: a file, or a folder of files, nested as Hive nests them (`split=test/part-0.parquet`) or not.

Files come in the order of their paths; names that begin with `_` or `.` are skipped. What a Hive folder says becomes a
metadata column of strings, unless the file has a column of that name. Files without rows are left out, unless all are:
their columns may have no type. Pages are read as a stream, so that memory does not grow with the size of a row group;
only the columns that are wanted are read.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embinv.data.dumps.arrow_rows import blocks_of
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import Columns, choose_columns, id_type
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import FileStamp, damaged, open_stamped, watched

SUFFIXES = (".parquet", ".pq")
_BUFFER_BYTES = 1 << 20  # of one column's pages, read at a time
_LEAST_ROWS = 1024  # read at once, however small the blocks
_PART_ROWS = 1 << 18  # a file with more is cut between row groups, to be read by several processes


@dataclass(frozen=True)
class ParquetPart:
    """A file, or some consecutive row groups of a large one."""

    name: str
    rows: int
    stamp: FileStamp
    columns: Columns
    groups: range
    first_row: int
    ids_as_text: bool = False
    added: dict[str, str] = field(default_factory=dict)

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        return watched(self._read(rows, metadata), self.stamp)

    def _read(self, rows: int, metadata: bool) -> Iterator[Block]:
        batches = self._batches(max(rows, _LEAST_ROWS), metadata)
        yield from blocks_of(
            batches, self.columns, self.name, rows, metadata, self.first_row, self.ids_as_text, self.added
        )

    def _batches(self, rows: int, metadata: bool) -> Iterator[pa.RecordBatch]:
        names = self.columns.wanted(metadata)
        with pq.ParquetFile(self.stamp.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as parquet:
            for group in self.groups:
                yield from parquet.iter_batches(rows, [group], names, use_threads=False)


@dataclass(frozen=True)
class ParquetDump:
    """A Parquet file, or a folder of them.

    Attributes:
        address: the file or folder.
        settings: `column`, `id_column` and `metadata` are used.
        default_id: what an id's column is called if the settings do not say.
        added: metadata of one value for all rows.
        part_rows: a file with more rows is cut into several parts, between row groups.
    """

    address: str
    settings: DumpSettings
    default_id: str | None = "id"
    added: dict[str, str] = field(default_factory=dict)
    part_rows: int = _PART_ROWS

    def parts(self) -> list[ParquetPart]:
        """See `Dump`; reads the files' footers.

        Raises:
            BrokenDump: a file has no whole footer.
            ValueError: the vectors' column cannot be told, or files differ in their vectors' length.
        """
        return parquet_parts([self])


def parquet_parts(dumps: list[ParquetDump]) -> list[ParquetPart]:
    """The parts of several places that make one dump: rows are numbered through, and ids are of one type.

    Raises:
        BrokenDump: a file has no whole footer.
        ValueError: as `ParquetDump.parts`.
    """
    parts: list[ParquetPart] = []
    kinds: set[pa.DataType | None] = set()
    first_row, width, of_width = 0, None, ""
    for dump, path, stamp, metadata, schema in _footers(dumps):
        added, settings = _added(dump, path, schema)
        columns = choose_columns(schema, settings, path, dump.default_id)
        vector = schema.field(columns.vector).type
        if pa.types.is_fixed_size_list(vector):
            if width not in (None, vector.list_size):
                raise ValueError(
                    f"--vectors {path}: its vectors have {vector.list_size} numbers, those of {of_width} {width}; "
                    "give folders of one length each"
                )
            width, of_width = vector.list_size, path
        kinds.add(None if columns.id is None else id_type(schema.field(columns.id).type))
        for groups in _runs(metadata, dump.part_rows):
            rows = sum(metadata.row_group(group).num_rows for group in groups)
            whole = len(groups) == metadata.num_row_groups
            name = path if whole else f"{path} (row groups {groups[0]} to {groups[-1]})"
            parts.append(ParquetPart(name, rows, stamp, columns, groups, first_row, added=added))
            first_row += rows
    return _of_one_id_type(parts, kinds)


def parquet_paths(address: str) -> list[str]:
    """The file itself, or the Parquet files below a folder, sorted by path.

    Raises:
        ValueError: there is none.
    """
    if not os.path.isdir(address):
        return [address]
    root = Path(address)
    found = []
    for path in root.rglob("*"):
        inner = path.relative_to(root).parts
        if path.suffix.lower() in SUFFIXES and path.is_file() and not any(part[0] in "._" for part in inner):
            found.append((inner, str(path)))
    if not found:
        raise ValueError(f"--vectors {address}: the folder holds no Parquet file; give the folder of the vectors")
    return [path for _, path in sorted(found)]


def _footers(
    dumps: list[ParquetDump],
) -> Iterator[tuple[ParquetDump, str, FileStamp, pq.FileMetaData, pa.Schema]]:
    """The files with their footers; those without rows only if none has any."""
    empty, filled = [], False
    for dump in dumps:
        for path in parquet_paths(dump.address):
            found = (dump, path, *_footer(path))
            if found[3].num_rows:
                filled = True
                yield found
            else:
                empty.append(found)
    if not filled:
        yield from empty


def _footer(path: str) -> tuple[FileStamp, pq.FileMetaData, pa.Schema]:
    stamp = open_stamped(path)
    try:
        with pq.ParquetFile(path) as parquet:
            return stamp, parquet.metadata, parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise BrokenDump(f"--vectors {damaged(path, 0, error)}; or move it away, if the others will do") from error


def _runs(metadata: pq.FileMetaData, part_rows: int) -> Iterator[range]:
    """Consecutive row groups of about part_rows rows; at least one run, so that an empty file is a part too."""
    start, held = 0, 0
    for group in range(metadata.num_row_groups):
        held += metadata.row_group(group).num_rows
        if held >= part_rows:
            yield range(start, group + 1)
            start, held = group + 1, 0
    if start < metadata.num_row_groups or start == 0:
        yield range(start, metadata.num_row_groups)


def _added(dump: ParquetDump, path: str, schema: pa.Schema) -> tuple[dict[str, str], DumpSettings]:
    """The metadata that stand in no column and are wanted, and the settings without them."""
    there = dump.added | _hive(dump.address, path)
    asked = dump.settings.metadata
    added = {name: there[name] for name in there if name not in schema.names and (asked is None or name in asked)}
    if asked is None:
        return added, dump.settings
    return added, dump.settings.model_copy(update={"metadata": [name for name in asked if name not in added]})


def _hive(address: str, path: str) -> dict[str, str]:
    """What the folders between the two say: `split=test/lang=de` is split and lang."""
    folders = Path(path).relative_to(address).parts[:-1]
    return dict(folder.split("=", 1) for folder in folders if "=" in folder)


def _of_one_id_type(parts: list[ParquetPart], kinds: set[pa.DataType | None]) -> list[ParquetPart]:
    if None in kinds and len(kinds) > 1:
        lacking = next(part for part in parts if part.columns.id is None)
        raise ValueError(
            f"--vectors {lacking.stamp.path}: has no column of ids, while others have; name one that all have with "
            "id_column, or read the files apart"
        )
    if len(kinds) < 2:
        return parts
    return [replace(part, ids_as_text=True) for part in parts]
