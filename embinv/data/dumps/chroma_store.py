"""Vectors in a folder that Chroma keeps (`chromadb.PersistentClient`).

`name` picks the collection where there are several. The metadata are the collection's, and its documents as a column
`document`. Chroma itself opens the folder: telemetry is off, no migration is run and no collection written, but
opening it touches the bookkeeping in `chroma.sqlite3`. Blocks are asked for one by one by offset, so a collection that
shrinks or grows meanwhile is noticed by its count only. No `embedding_function` of a collection is loaded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embinv.data.dumps.arrow_rows import as_float32
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import choose_name
from embinv.data.dumps.dict_rows import Unseen, metadata_table
from embinv.data.dumps.libraries import import_library
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import GO_ON, damaged

DATABASE = "chroma.sqlite3"
_DOCUMENT = "document"


@dataclass(frozen=True)
class ChromaPart:
    """The one part of a collection."""

    name: str
    rows: int
    folder: str
    collection: str
    metadata: tuple[str, ...] | None

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        with _client(self.folder) as client:
            start, unseen = 0, Unseen(self.metadata if metadata else None)
            while start < self.rows:
                try:
                    collection = client.get_collection(self.collection, embedding_function=None)
                    found = _get(collection, start, min(rows, self.rows - start), metadata)
                    count = collection.count()
                except _failures() as error:
                    raise damaged(self.name, start, error) from error
                if count != self.rows or not found["ids"]:
                    raise BrokenDump(
                        f"{self.name}: was changed while it was read, seen at row {start}: it had {self.rows} rows, "
                        f"now {count}; let nobody write to it, or read a copy: {GO_ON} if the rows before are the same"
                    )
                yield self._block(found, metadata, unseen)
                start += len(found["ids"])
            unseen.warn(self.name)

    def _block(self, found: dict[str, Any], metadata: bool, unseen: Unseen) -> Block:
        ids = pa.array(found["ids"], pa.string())
        vectors = as_float32(found["embeddings"])
        if not metadata or self.metadata == ():
            return Block(ids, vectors)
        kept = [
            {**(row or {}), **({} if document is None else {_DOCUMENT: document})}
            for row, document in zip(found["metadatas"], found["documents"], strict=True)
        ]
        unseen.look_at(kept)
        return Block(ids, vectors, metadata_table(kept, self.metadata, set()))


@dataclass(frozen=True)
class ChromaDump:
    """A folder of Chroma's."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[ChromaPart]:
        """See `Dump`; reads the collection's count.

        Raises:
            BrokenDump: Chroma cannot open it, or only after a migration.
            MissingLibrary: chromadb is not installed.
            ValueError: the collection cannot be told.
        """
        with _client(self.address) as client:
            try:
                rows = {
                    each.name: client.get_collection(each.name, embedding_function=None).count()
                    for each in client.list_collections()
                }
            except _failures() as error:
                raise BrokenDump(f"--vectors {damaged(self.address, 0, error)}") from error
            name = choose_name(self.settings.name, sorted(rows), self.address, "collection")
        metadata = None if self.settings.metadata is None else tuple(self.settings.metadata)
        return [ChromaPart(f"{self.address} ({name})", rows[name], self.address, name, metadata)]


@contextmanager
def _client(folder: str) -> Iterator[Any]:
    chromadb = import_library("chromadb", "chroma", folder)
    settings = import_library("chromadb.config", "chroma", folder).Settings(
        anonymized_telemetry=False, migrations="validate"
    )
    if not os.path.isfile(os.path.join(folder, DATABASE)):  # Chroma would make one
        raise BrokenDump(f"--vectors {folder}: holds no {DATABASE}; give the folder that Chroma was opened with")
    try:
        client = chromadb.PersistentClient(folder, settings=settings)
    except _failures() as error:
        raise BrokenDump(
            f"--vectors {folder}: Chroma cannot open it ({str(error).splitlines()[0] if str(error) else error!r}); if "
            "another version wrote it, open a copy once with chromadb itself, which migrates it, and read that"
        ) from error
    try:
        yield client
    finally:
        client.close()


def _failures() -> tuple[type[Exception], ...]:
    from chromadb.errors import ChromaError

    return ChromaError, ValueError, RuntimeError, OSError


def _get(collection: Any, start: int, count: int, metadata: bool) -> dict[str, Any]:
    include = ["embeddings", *(("metadatas", "documents") if metadata else ())]
    return collection.get(limit=count, offset=start, include=include)
