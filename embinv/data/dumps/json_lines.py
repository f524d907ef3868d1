"""Vectors in JSON lines: an object a line, `{"id": 7, "embedding": [0.1, -0.2], "text": "..."}`; also as .gz and .zst.

Fields are chosen on the first line: `column` is the vector's, by default `embedding`, else the only list of numbers;
`id_column` the id's, by default `id` if the first line has it. Ids are all integers or all strings. A field of metadata
that is asked for by its name must be there too; else all are read that occur, on whatever line. Numbers of rows count
lines that are not blank, from 0. The types of metadata are found block by block.
"""

import gzip
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import choose_id, choose_metadata, choose_vector
from embinv.data.dumps.dict_rows import id_array, metadata_table, vector_of
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import Damage, FileStamp, damaged, open_stamped, watched

_KINDS = (".jsonl", ".ndjson")
_OPENERS: dict[str, Callable[[str], Any]] = {
    "": lambda path: open(path, "rb"),  # noqa: SIM115 -- closed by `_opened`
    ".gz": lambda path: gzip.open(path, "rb"),  # noqa: SIM115
    ".zst": lambda path: pa.CompressedInputStream(pa.OSFile(path), "zstd"),
}
SUFFIXES = tuple(kind + packed for kind in _KINDS for packed in _OPENERS)
_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 64 << 20  # a longer line is no row
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class JsonLinesPart:
    """The one part of a file of JSON lines."""

    name: str
    stamp: FileStamp
    vector: str
    id: str | None
    metadata: tuple[str, ...] | None

    @property
    def rows(self) -> int | None:
        """Not known before it is read."""
        return None

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        return watched(self._read(rows, metadata), self.stamp)

    def _read(self, rows: int, metadata: bool) -> Iterator[Block]:
        held: list[dict[str, Any]] = []
        vectors: list[np.ndarray] = []
        start, dim, kind, damage = 0, None, None, None
        objects = _objects(self.name)
        while True:
            try:
                row = next(objects, None)
            except (Damage, pa.ArrowException, OSError, EOFError) as error:  # what stands before it is good
                row, damage = None, error
            if row is not None:
                vectors.append(vector_of(row.pop(self.vector, None), self.name, self.vector, start + len(held), dim))
                held.append(row)
                dim = len(vectors[0])
            if held and (len(held) == rows or row is None):
                if self.id is None:
                    ids = pa.array(range(start, start + len(held)), pa.int64())
                else:
                    values = [each.get(self.id) for each in held]
                    kind = kind or (int if isinstance(values[0], int) else str)
                    ids = id_array(values, self.name, self.id, start, kind)
                taken = {self.vector} | ({self.id} if self.id is not None else set())
                kept = metadata_table(held, self.metadata, taken) if metadata and self.metadata != () else None
                yield Block(ids, np.stack(vectors), kept)
                start += len(held)
                held, vectors = [], []
            if row is None:
                break
        if damage is not None:
            raise damage


@dataclass(frozen=True)
class JsonLinesDump:
    """A file of JSON lines."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[JsonLinesPart]:
        """See `Dump`; reads the first line.

        Raises:
            BrokenDump: it cannot be opened, or its first line cannot be read.
            ValueError: the vectors' field cannot be told, or the line lacks a field that was asked for.
        """
        stamp = open_stamped(self.address)
        try:
            with closing(_objects(self.address)) as objects:
                first = next(objects, None)
        except (Damage, pa.ArrowException, OSError, EOFError) as error:
            raise BrokenDump(f"--vectors {damaged(self.address, 0, error)}") from error
        if first is None:
            raise ValueError(f"--vectors {self.address}: is empty; write a line for each vector")
        held = [name for name, value in first.items() if _is_vector(value)]
        vector = choose_vector(self.settings.column, held, list(first), self.address)
        id_column = choose_id(self.settings, list(first), self.address)
        metadata = None
        if self.settings.metadata is not None:
            metadata = choose_metadata(self.settings, list(first), {vector, id_column}, self.address)
        return [JsonLinesPart(self.address, stamp, vector, id_column, metadata)]


def _is_vector(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )


def _objects(path: str) -> Generator[dict[str, Any], None, None]:
    """The rows of a file in order."""
    with _opened(path) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if not line or line.isspace():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Damage(f"line {number}: {error}") from error
            if isinstance(row, list) and number == 1:
                raise ValueError(f"{path}: is one JSON array; write one object a line, as with `jq -c '.[]'`")
            if not isinstance(row, dict):
                raise Damage(f"line {number} is a {type(row).__name__}, not an object")
            yield row


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    packed = next(suffix for suffix in reversed(_OPENERS) if path.lower().endswith(suffix))
    with closing(_OPENERS[packed](path)) as stream:
        yield stream


def _lines(stream: Any) -> Iterator[bytes]:
    """Lines without their ends; those that stand before a damage come before its exception."""
    read = getattr(stream, "read1", stream.read)  # read1 gives what it has, so a damage costs no good lines
    rest, first = b"", True
    while chunk := read(_CHUNK_BYTES):
        if first:
            chunk, first = chunk.removeprefix(_BYTE_ORDER_MARK), False
        if b"\n" in chunk:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        else:
            rest += chunk
            if len(rest) > _LINE_BYTES:
                raise Damage(f"a line is longer than {_LINE_BYTES >> 20} MiB")
    yield rest
