"""Vectors in a folder of Qdrant's local mode (`QdrantClient(path=...)`).

`name` picks the collection where there are several, `column` the vector where points have several by name. The folder
is read without Qdrant's client, which would hold all of it in memory and unpickle whatever lies in it: local mode keeps
each point as a pickle in SQLite. Here such a pickle is taken for data alone: a class that it names becomes an empty
record if it is one of the client's, and ends the reading if not, so that nothing in the file is run.
Points come in the order in which they were first written; ids are int64 if all are numbers that fit, else strings.
What it does not do: speak to a server, nor read a server's own storage.
"""

import base64
import io
import json
import pickle
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import choose_name, choose_vector
from embinv.data.dumps.dict_rows import Unseen, id_array, metadata_table, vector_of
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import FileStamp, damaged, open_stamped, watched

META_FILE = "meta.json"
_COLLECTIONS = "collection"
_STORAGE = "storage.sqlite"
_ONLY = "vector"  # what messages call the vector that has no name
_INT64 = range(-(2**63), 2**63)
_CLIENT = "qdrant_client."


class _Record:
    """What stands in for a class of the client: it takes attributes and does nothing."""


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.startswith(_CLIENT):
            return _Record
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is no part of a point")


@dataclass(frozen=True)
class QdrantPart:
    """The one part of a collection.

    Attributes:
        vector: name of the vector, or None where it has none.
        integer_ids: whether ids are int64.
    """

    name: str
    rows: int
    stamp: FileStamp
    vector: str | None
    metadata: tuple[str, ...] | None
    integer_ids: bool

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        return watched(self._read(rows, metadata), self.stamp)

    def _read(self, rows: int, metadata: bool) -> Iterator[Block]:
        start, dim, unseen = 0, None, Unseen(self.metadata if metadata else None)
        try:
            with _storage(self.stamp.path) as storage:
                cursor = storage.execute("SELECT point FROM points ORDER BY rowid")
                while held := cursor.fetchmany(rows):
                    points = [_read_point(each) for (each,) in held]
                    block = self._block(points, start, dim, metadata)
                    dim = block.vectors.shape[1]
                    unseen.look_at([point.get("payload") or {} for point in points])
                    yield block
                    start += len(block)
            unseen.warn(self.name)
        except (sqlite3.Error, pickle.UnpicklingError) as error:
            self.stamp.check(start)
            raise damaged(self.name, start, error) from error

    def _block(self, points: list[dict[str, Any]], start: int, dim: int | None, metadata: bool) -> Block:
        vectors = []
        for row, point in enumerate(points, start=start):
            value = point.get("vector")
            if self.vector is not None:
                value = value.get(self.vector) if isinstance(value, dict) else None
            vectors.append(vector_of(value, self.name, self.vector or _ONLY, row, dim))
            dim = len(vectors[0])
        ids = [point.get("id") for point in points]
        if not self.integer_ids:
            ids = [str(each) if isinstance(each, int) else each for each in ids]
        payloads = [point.get("payload") or {} for point in points]
        return Block(
            id_array(ids, self.name, "id", start, int if self.integer_ids else str),
            np.stack(vectors),
            metadata_table(payloads, self.metadata, set()) if metadata and self.metadata != () else None,
        )


@dataclass(frozen=True)
class QdrantDump:
    """A folder of Qdrant's local mode."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[QdrantPart]:
        """See `Dump`; reads the collections' settings and all ids of one.

        Raises:
            BrokenDump: the folder cannot be read.
            ValueError: the collection or the vector cannot be told.
        """
        path = Path(self.address) / META_FILE
        try:
            collections = json.loads(path.read_text(encoding="utf-8"))["collections"]
            there = {name: each["vectors"] or {} for name, each in collections.items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BrokenDump(f"--vectors {path}: cannot be read ({error}); give a folder of Qdrant's client") from error
        name = choose_name(self.settings.name, sorted(there), self.address, "collection")
        vector = self._vector(there[name], f"{self.address} ({name})")
        storage = str(Path(self.address) / _COLLECTIONS / name / _STORAGE)
        stamp = open_stamped(storage)
        try:
            rows, integers = _counted(storage)
        except (sqlite3.Error, pickle.UnpicklingError, ValueError) as error:
            raise BrokenDump(f"--vectors {damaged(storage, 0, error)}") from error
        metadata = None if self.settings.metadata is None else tuple(self.settings.metadata)
        return [QdrantPart(f"{self.address} ({name})", rows, stamp, vector, metadata, integers)]

    def _vector(self, there: dict[str, Any], where: str) -> str | None:
        if isinstance(there.get("size"), int):  # one vector without a name
            if self.settings.column is not None:
                raise ValueError(f"--vectors {where}: its vectors have no names; leave column out")
            return None
        return choose_vector(self.settings.column, list(there), list(there), where)


def _counted(storage: str) -> tuple[int, bool]:
    """How many points there are, and whether all ids are numbers that int64 holds."""
    rows, integers = 0, True
    with _storage(storage) as opened:
        for (key,) in opened.execute("SELECT id FROM points"):
            value = _unpickled(base64.b64decode(key))
            integers = integers and isinstance(value, int) and value in _INT64
            rows += 1
    return rows, integers


@contextmanager
def _storage(path: str) -> Iterator[sqlite3.Connection]:
    address = f"{Path(path).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, check_same_thread=False)) as opened:  # closed by another perhaps
        yield opened


def _read_point(value: bytes) -> dict[str, Any]:
    """Id, vector and payload of a pickled point."""
    point = _unpickled(value)
    found = vars(point).get("__dict__") if isinstance(point, _Record) else None
    if not isinstance(found, dict):
        raise pickle.UnpicklingError("it holds no point")
    return found


def _unpickled(value: bytes) -> Any:
    try:
        return _Reader(io.BytesIO(value)).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle fails in many ways
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
