"""Vectors in CSV with a header line (`.csv` by commas, `.tsv` by tabs), in one of two ways:

- a cell holds the vector as JSON, `"[0.1, -0.2]"`. `column` is its name, by default `embedding`, else the only column
  whose first cell looks so;
- a column for each number, called by one prefix and the numbers 0 to D-1 without a gap, in any order: `e_0,e_1,e_2`,
  `dim0,dim1`, or `0,1,2`. `column` is the prefix (`e_`, `dim`), by default the only one there is.

A cell of JSON goes before numbered columns. Everything else in CSV is text: metadata are strings, an empty cell is
null. Ids are int64 if all of them are integers as int64 is written, which a pass over the file finds out at opening.
"""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embinv.data.dumps.arrow_rows import as_float32, null_id
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import DEFAULT_COLUMN, choose_id, choose_metadata, choose_vector
from embinv.data.dumps.dict_rows import vector_of
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import Damage, FileStamp, damaged, open_stamped, watched

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CELL_CHARACTERS = 64 << 20  # a longer cell is none
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_NUMBERED = re.compile(r"(.*?)(0|[1-9][0-9]*)")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class CsvPart:
    """The one part of a CSV file.

    Attributes:
        vector: name of the column, or prefix of the columns.
        places: of those columns in a row, one for a cell of JSON.
        id: name and place of the ids.
        metadata: names and places.
        integer_ids: whether ids are int64.
    """

    name: str
    rows: int
    stamp: FileStamp
    vector: str
    places: tuple[int, ...]
    id: tuple[str, int] | None
    metadata: tuple[tuple[str, int], ...]
    integer_ids: bool

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        return watched(self._read(rows, metadata), self.stamp)

    def _read(self, rows: int, metadata: bool) -> Iterator[Block]:
        start, dim, damage = 0, None, None
        held: list[list[str]] = []
        vectors: list[np.ndarray] = []
        with _rows(self.name) as (_, reader):
            while True:
                try:
                    row = next(reader, None)
                except (Damage, UnicodeDecodeError, OSError) as error:  # what stands before it is good
                    row, damage = None, error
                if row is not None:
                    vectors.append(self._vector(row, start + len(held), dim))
                    held.append(row)
                    dim = len(vectors[0])
                if held and (len(held) == rows or row is None):
                    yield Block(self._ids(held, start), np.stack(vectors), self._metadata(held) if metadata else None)
                    start += len(held)
                    held, vectors = [], []
                if row is None:
                    break
        if damage is not None:
            raise damage

    def _vector(self, row: list[str], number: int, dim: int | None) -> np.ndarray:
        cells = [row[place] for place in self.places]
        if "" in cells:
            raise ValueError(
                f"{self.name}: row {number} of {self.vector!r} is empty; remove the row or encode it again"
            )
        try:
            if len(cells) > 1:
                return as_float32(np.array(cells, dtype=np.float64))
            value = json.loads(cells[0])
        except ValueError as error:
            raise ValueError(
                f"{self.name}: row {number} of {self.vector!r} is no vector ({error}); write numbers, or a cell as "
                "[0.1, -0.2]"
            ) from error
        return vector_of(value, self.name, self.vector, number, dim)

    def _ids(self, held: list[list[str]], start: int) -> pa.Array:
        if self.id is None:
            return pa.array(range(start, start + len(held)), pa.int64())
        name, place = self.id
        values = [row[place] for row in held]
        if "" in values:
            raise null_id(self.name, name, start + values.index(""))
        return pa.array([int(value) for value in values]) if self.integer_ids else pa.array(values, pa.string())

    def _metadata(self, held: list[list[str]]) -> pa.Table | None:
        if not self.metadata:
            return None
        return pa.table({name: pa.array([row[at] or None for row in held], pa.string()) for name, at in self.metadata})


@dataclass(frozen=True)
class CsvDump:
    """A CSV file."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[CsvPart]:
        """See `Dump`; reads the file once, for the count and the kind of its ids.

        Raises:
            BrokenDump: it cannot be opened.
            ValueError: it has no header, or the vectors' column cannot be told.
        """
        stamp = open_stamped(self.address)
        try:
            with _rows(self.address) as (header, reader):
                first = next(reader, None)
        except (Damage, UnicodeDecodeError, OSError) as error:
            raise BrokenDump(f"--vectors {damaged(self.address, 0, error)}") from error
        if len(set(header)) < len(header):
            raise ValueError(f"--vectors {self.address}: two columns have one name; rename one in the first line")
        vector, places = self._vector_places(header, first or [])
        id_column = choose_id(self.settings, header, self.address)
        taken: set[str | None] = {id_column, *(header[place] for place in places)}
        names = choose_metadata(self.settings, header, taken, self.address)
        at = None if id_column is None else header.index(id_column)
        rows, integers = _counted(self.address, at)
        metadata = tuple((name, header.index(name)) for name in names)
        own = None if id_column is None or at is None else (id_column, at)
        return [CsvPart(self.address, rows, stamp, vector, places, own, metadata, integers)]

    def _vector_places(self, header: list[str], first: list[str]) -> tuple[str, tuple[int, ...]]:
        cells = [name for name, cell in zip(header, first, strict=False) if cell.lstrip().startswith("[")]
        numbered = _numbered_columns(header)
        named = self.settings.column
        if named is not None and named not in header and named in numbered:
            return named, numbered[named]
        if named is None and not cells and DEFAULT_COLUMN not in header and len(numbered) == 1:
            return next(iter(numbered.items()))
        choices = [*cells, *numbered]
        vector = choose_vector(named, cells or choices, header, self.address)
        return vector, (header.index(vector),)


def _numbered_columns(header: list[str]) -> dict[str, tuple[int, ...]]:
    """Prefixes that stand before each of 0 to D-1, D > 1, and where those columns are, in the order of 0 to D-1."""
    found: dict[str, dict[int, int]] = {}
    for place, name in enumerate(header):
        if match := _NUMBERED.fullmatch(name):
            found.setdefault(match[1], {})[int(match[2])] = place
    return {
        prefix: tuple(places[number] for number in range(len(places)))
        for prefix, places in found.items()
        if len(places) > 1 and set(places) == set(range(len(places)))
    }


def _counted(path: str, id_place: int | None) -> tuple[int, bool]:
    """How many good rows the file has, and whether all their ids are int64."""
    rows, integers = 0, True
    with _rows(path) as (_, reader):
        while True:
            try:
                row = next(reader, None)
            except (Damage, UnicodeDecodeError, OSError):
                row = None  # whoever reads the blocks is told
            if row is None:
                return rows, integers
            rows += 1
            if integers and id_place is not None and row[id_place]:
                integers = _INTEGER.fullmatch(row[id_place]) is not None and int(row[id_place]) in _INT64


@contextmanager
def _rows(path: str) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """The header, and the rows in order; each row has as many cells as the header."""
    delimiter = next(each for suffix, each in DELIMITERS.items() if path.lower().endswith(suffix))
    csv.field_size_limit(max(csv.field_size_limit(), _CELL_CHARACTERS))  # of the process; vectors are long
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise Damage(str(error)) from error
        if not header:
            raise ValueError(f"--vectors {path}: is empty; write a first line with the columns' names")
        yield header, _whole_rows(reader, len(header))


def _whole_rows(reader: Iterator[list[str]], cells: int) -> Iterator[list[str]]:
    try:
        for row in reader:
            if row and len(row) != cells:
                raise Damage(f"a row has {len(row)} of {cells} cells")
            if row:
                yield row
    except csv.Error as error:
        raise Damage(str(error)) from error
