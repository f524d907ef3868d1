"""Vectors in a table of LanceDB: a folder with `NAME.lance` folders in it, or one of those.

`name` picks the table where there are several. Rows come in the table's own order, and as of the version that the table
had when the dump was opened, so that who adds rows meanwhile changes nothing; who compacts it and removes old versions
ends the reading.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embinv.data.dumps.arrow_rows import blocks_of
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import Columns, choose_columns, choose_name
from embinv.data.dumps.libraries import import_library
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import damaged

SUFFIX = ".lance"
_LEAST_ROWS = 1024  # read at once, however small the blocks


@dataclass(frozen=True)
class LancePart:
    """The one part of a table."""

    name: str
    rows: int
    folder: str
    table: str
    version: int
    columns: Columns

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        row = 0
        try:
            batches = self._batches(max(rows, _LEAST_ROWS), metadata)
            for block in blocks_of(batches, self.columns, self.name, rows, metadata):
                row += len(block)
                yield block
        except (RuntimeError, OSError, pa.ArrowException) as error:
            raise damaged(self.name, row, error) from error
        if row != self.rows:
            raise damaged(self.name, row, f"it had {self.rows} rows when it was opened")

    def _batches(self, rows: int, metadata: bool) -> Iterator[pa.RecordBatch]:
        try:
            table = _open_table(self.folder, self.table)
            table.checkout(self.version)
        except (RuntimeError, OSError, ValueError) as error:
            raise damaged(self.name, 0, error) from error
        yield from table.search().select(self.columns.wanted(metadata)).to_batches(rows)


@dataclass(frozen=True)
class LanceDump:
    """A folder of LanceDB's tables, or one table."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[LancePart]:
        """See `Dump`; reads the table's schema and count.

        Raises:
            BrokenDump: the table cannot be opened.
            MissingLibrary: lancedb is not installed.
            ValueError: the table, or the vectors' column, cannot be told.
        """
        folder, named = self.address, self.settings.name
        if folder.rstrip("/").endswith(SUFFIX):
            folder, own = os.path.split(os.path.abspath(folder))
            named = named if named is not None else own.removesuffix(SUFFIX)
        there = sorted(each.removesuffix(SUFFIX) for each in os.listdir(folder) if each.endswith(SUFFIX))
        name = choose_name(named, there, self.address, "table")
        import_library("lancedb", "lancedb", self.address)
        try:
            table = _open_table(folder, name)
            schema, version, rows = table.schema, table.version, table.count_rows()
        except (RuntimeError, OSError, ValueError) as error:
            raise BrokenDump(f"--vectors {damaged(os.path.join(folder, name + SUFFIX), 0, error)}") from error
        columns = choose_columns(schema, self.settings, f"{self.address} ({name})")
        return [LancePart(f"{folder} ({name})", rows, folder, name, version, columns)]


def _open_table(folder: str, name: str) -> Any:
    import lancedb

    return lancedb.connect(folder).open_table(name)
