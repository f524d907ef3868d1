"""Vectors in an index of FAISS: a `.faiss` or `.index` file, or a folder of LangChain's that holds `index.faiss`.

The ids are those of an IndexIDMap or of an inverted file, which then gives its rows in the order of their ids; else
rows are numbered. There is no metadata: what LangChain keeps beside an index is a pickle, and is not opened. An index
that keeps codes instead of vectors (product or scalar quantisation) gives approximations, and its part's name says so;
one that can give none back, and binary ones, are refused. The file is mapped into memory where FAISS can.

A mapped file that is cut short by somebody else while it is read ends the process; copy a file that is still written.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embinv.data.dumps.arrow_rows import as_float32
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.libraries import import_library
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import Damage, FileStamp, damaged, open_stamped, watched

logger = logging.getLogger(__name__)

SUFFIXES = (".faiss", ".index")
LANGCHAIN_FILE = "index.faiss"
_EXACT = "Flat FlatIP FlatL2 Flat1D HNSWFlat NSGFlat IVFFlat RefineFlat".split()
_APPROXIMATE = "PQ ScalarQuantizer IVFPQ IVFScalarQuantizer HNSWPQ HNSWSQ".split()


@dataclass(frozen=True)
class _Opened:
    """An index, taken apart. The owner is kept: FAISS frees with it what lies in it."""

    owner: Any
    inner: Any
    ids: np.ndarray | None  # [N], None where rows are numbered
    by_id: bool  # the inner index is asked by id, in the order of ids


@dataclass(frozen=True)
class FaissPart:
    """The one part of an index."""

    name: str
    rows: int
    stamp: FileStamp

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`; there is no metadata."""
        return watched(self._read(rows), self.stamp)

    def _read(self, rows: int) -> Iterator[Block]:
        opened = _open(self.stamp.path)
        for start in range(0, self.rows, rows):
            count = min(rows, self.rows - start)
            if opened.ids is None:
                ids = np.arange(start, start + count, dtype=np.int64)
            else:
                ids = opened.ids[start : start + count]
            inner = opened.inner
            try:
                vectors = inner.reconstruct_batch(ids) if opened.by_id else inner.reconstruct_n(start, count)
            except RuntimeError as error:
                raise Damage(_reason(error)) from error
            yield Block(pa.array(ids), as_float32(vectors))


@dataclass(frozen=True)
class FaissDump:
    """An index of FAISS."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[FaissPart]:
        """See `Dump`; reads the index's head and ids.

        Raises:
            BrokenDump: it cannot be opened.
            MissingLibrary: faiss is not installed.
            ValueError: it gives no vectors back.
        """
        path = os.path.join(self.address, LANGCHAIN_FILE) if os.path.isdir(self.address) else self.address
        stamp = open_stamped(path)
        opened = _open(path)
        lossy = _lossy(opened.inner)
        if lossy:
            logger.warning("%s: keeps codes (%s), its vectors are approximations", path, lossy)
        name = f"{path} (approximate, {lossy})" if lossy else path
        return [FaissPart(name, opened.owner.ntotal, stamp)]


def _open(path: str) -> _Opened:
    faiss = import_library("faiss", "faiss", path)
    with open(path, "rb") as file:
        kind = file.read(4)
    if kind[:2] == b"IB":
        raise ValueError(
            f"--vectors {path}: is a binary index, which keeps bits and not vectors; give the vectors that they were "
            "made of"
        )
    if kind[:1] != b"I":
        raise ValueError(f"--vectors {path}: is no index of FAISS; write it with faiss.write_index")
    try:
        owner = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise BrokenDump(f"--vectors {damaged(path, 0, _reason(error))}") from error
    inner, ids = faiss.downcast_index(owner), None
    if isinstance(inner, faiss.IndexIDMap):  # IndexIDMap2 is one
        ids = faiss.vector_to_array(inner.id_map)
        inner = faiss.downcast_index(inner.index)
    _refuse_mute(inner, path)
    own = _inverted_ids(faiss, inner)
    if own is None:
        return _Opened(owner, inner, ids, by_id=False)
    file_of_lists = faiss.extract_index_ivf(inner)
    if np.array_equal(own, np.arange(len(own))):
        file_of_lists.make_direct_map()
        return _Opened(owner, inner, ids, by_id=False)
    if len(np.unique(own)) < len(own) or type(inner).__name__ == "IndexPreTransform":
        raise ValueError(f"--vectors {path}: {_what(inner)} has ids by which its vectors cannot be told; export them")
    file_of_lists.set_direct_map_type(faiss.DirectMap.Hashtable)
    return _Opened(owner, inner, own, by_id=True)


def _refuse_mute(index: Any, path: str) -> None:
    """Some kinds cannot give vectors back, and some end the process when they are asked to; known ones are let by."""
    kind = _kind(index)
    if kind == "PreTransform":
        kind = _kind(_below(index))
    if kind not in (*_EXACT, *_APPROXIMATE):
        raise ValueError(
            f"--vectors {path}: {_what(index)} gives no vectors back; give the vectors that it was made of, or an "
            f"index of {', '.join((*_EXACT, *_APPROXIMATE))}"
        )


def _lossy(index: Any) -> str | None:
    """What the index does to vectors, or None if they come back as they were."""
    if _kind(index) == "PreTransform":
        inner = _below(index)
        narrower = inner.d < index.d
        return _what(index) if narrower or _lossy(inner) else None
    return _what(index) if _kind(index) in _APPROXIMATE else None


def _inverted_ids(faiss: Any, index: Any) -> np.ndarray | None:
    """[N] the ids in an inverted file in their order, or None if it is no such index."""
    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        return None
    inverted = lists.invlists
    held = [
        np.array(faiss.rev_swig_ptr(inverted.get_ids(each), inverted.list_size(each)), np.int64)
        for each in range(lists.nlist)
        if inverted.list_size(each)
    ]
    return np.sort(np.concatenate(held)) if held else np.zeros(0, np.int64)


def _below(index: Any) -> Any:
    import faiss

    return faiss.downcast_index(index.index)


def _kind(index: Any) -> str:
    return type(index).__name__.removeprefix("Index")


def _what(index: Any) -> str:
    name = type(index).__name__
    return f"{name} of {type(_below(index)).__name__}" if name == "IndexPreTransform" else name


def _reason(error: RuntimeError) -> str:
    """FAISS tells where in its sources it was; what was wrong comes last."""
    return str(error).rpartition("Error: ")[2]
