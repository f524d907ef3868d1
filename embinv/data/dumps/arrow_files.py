"""Vectors in Arrow's own files: the file format (`.arrow`, `.feather` version 2, `.ipc`), mapped into memory, and the
stream format under the same names, which Hugging Face's `datasets` writes.

A mapped file that is cut short by somebody else while it is read ends the process; copy a file that is still written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embinv.data.dumps.arrow_rows import blocks_of
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import Columns, choose_columns
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import FileStamp, damaged, open_stamped, watched

SUFFIXES = (".arrow", ".feather", ".ipc")
_MAGIC = b"ARROW1"  # of the file format; a stream begins otherwise


@dataclass(frozen=True)
class ArrowPart:
    """The one part of an Arrow file."""

    name: str
    rows: int | None
    stamp: FileStamp
    columns: Columns

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        return watched(self._read(rows, metadata), self.stamp)

    def _read(self, rows: int, metadata: bool) -> Iterator[Block]:
        yield from blocks_of(self._batches(metadata), self.columns, self.name, rows, metadata)

    def _batches(self, metadata: bool) -> Iterator[pa.RecordBatch]:
        names = self.columns.wanted(metadata)
        with pa.memory_map(self.name) as source:
            if _is_stream(self.name):
                with pa.ipc.open_stream(source) as stream:
                    for batch in stream:
                        yield batch.select(names)
                return
            schema = pa.ipc.open_file(source).schema
            options = pa.ipc.IpcReadOptions(included_fields=[schema.names.index(name) for name in names])
            with pa.ipc.open_file(source, options=options) as reader:
                for number in range(reader.num_record_batches):
                    yield reader.get_batch(number).select(names)


@dataclass(frozen=True)
class ArrowDump:
    """An Arrow file."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[ArrowPart]:
        """See `Dump`; reads the schema, and of the file format the count of rows.

        Raises:
            BrokenDump: it is no such file, or has no whole footer.
            ValueError: the vectors' column cannot be told.
        """
        stamp = open_stamped(self.address)
        try:
            with pa.memory_map(self.address) as source:
                schema, rows = _schema_and_rows(source, _is_stream(self.address))
        except (pa.ArrowException, OSError) as error:
            raise BrokenDump(f"--vectors {damaged(self.address, 0, error)}") from error
        return [ArrowPart(self.address, rows, stamp, choose_columns(schema, self.settings, self.address))]


def _schema_and_rows(source: Any, is_stream: bool) -> tuple[pa.Schema, int | None]:
    if is_stream:
        with pa.ipc.open_stream(source) as stream:
            return stream.schema, None
    with pa.ipc.open_file(source) as reader:
        return reader.schema, reader.count_rows()


def _is_stream(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) != _MAGIC
