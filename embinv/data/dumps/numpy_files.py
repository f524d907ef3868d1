"""Vectors in NumPy's files: `.npy` with one array [N, D], `.npz` with several arrays of N rows.

Nothing is unpickled: an array of objects is refused, or left out where it is not asked for. Rows are read block by
block, out of a zip too, compressed or not; no memory map, since a file that shrinks under one kills the process.
In an `.npz`, `name` (or `column`) says which array holds the vectors, by default `embedding`, else the only one [N, D]
of numbers; the other arrays of N rows are metadata where Arrow has their type. In Fortran order only a `.npy` can be
read.
"""

import logging
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy

from embinv.data.dumps.arrow_rows import as_float32, ids_of
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import DEFAULT_ID, Columns, choose_id, choose_metadata, choose_vector
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import Damage, FileStamp, open_stamped, watched

logger = logging.getLogger(__name__)

_SUFFIX = ".npy"
_METADATA_KINDS = "biufUSM"  # of NumPy's dtypes those of which most have an Arrow type


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    def holds_vectors(self) -> bool:
        return len(self.shape) == 2 and self.shape[1] > 0 and self.dtype.kind in "fiu"

    def holds_metadata(self, rows: int) -> bool:
        if self.dtype.kind not in _METADATA_KINDS or self.shape[:1] != (rows,) or self.row_bytes == 0:
            return False
        try:
            pa.from_numpy_dtype(self.dtype.newbyteorder("="))
        except pa.ArrowNotImplementedError:  # such as times in years, or numbers of 16 bytes
            return False
        return True


def _read_header(stream: IO[bytes], where: str) -> _Header:
    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            return _Header(*npy.read_array_header_1_0(stream))
        if version == (2, 0):
            return _Header(*npy.read_array_header_2_0(stream))
    except ValueError as error:
        raise BrokenDump(f"--vectors {where}: is no .npy array ({error}); write it with numpy.save") from error
    raise BrokenDump(f"--vectors {where}: is written in version {version} of .npy; write it anew with numpy.save")


def _refuse_others(header: _Header, where: str) -> None:
    if not header.holds_vectors():
        raise ValueError(
            f"--vectors {where}: expected an array [N, D] of real numbers, got {header.dtype} of shape "
            f"{header.shape}; save the vectors as one matrix"
        )


@dataclass(frozen=True)
class NpyPart:
    """The one part of a `.npy` file."""

    name: str
    rows: int
    stamp: FileStamp

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`; there is no metadata."""
        return watched(self._read(rows), self.stamp)

    def _read(self, rows: int) -> Iterator[Block]:
        with open(self.name, "rb") as file:
            header = _read_header(file, self.name)
            read = _columns_apart if header.fortran else _row_blocks
            start = 0
            for array in read(file, header, rows):
                yield Block(_numbered(start, len(array)), as_float32(array))
                start += len(array)


def _row_blocks(stream: IO[bytes], header: _Header, rows: int) -> Iterator[np.ndarray]:
    """Rows in order of an array in C order; whole rows before a damage come before its exception."""
    for start in range(0, header.shape[0], rows):
        count = min(rows, header.shape[0] - start)
        held, damage = bytearray(), None
        try:
            while len(held) < count * header.row_bytes and (more := stream.read(count * header.row_bytes - len(held))):
                held += more
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            damage = error
        whole = len(held) // header.row_bytes if header.row_bytes else count
        if whole:
            array = np.frombuffer(held, header.dtype, whole * prod(header.shape[1:]))
            yield array.reshape(whole, *header.shape[1:])
        if damage is not None:
            raise damage
        if whole < count:
            raise Damage(f"it has {start + whole} of {header.shape[0]} rows")


def _columns_apart(file: IO[bytes], header: _Header, rows: int) -> Iterator[np.ndarray]:
    """Rows in order of an array in Fortran order: a piece of each column at a time."""
    total, width = header.shape
    size, begin = header.dtype.itemsize, file.tell()
    held = (file.seek(0, 2) - begin) // size
    whole = min(total, max(0, held - (width - 1) * total))
    for start in range(0, whole, rows):
        count = min(rows, whole - start)
        array = np.empty((count, width), header.dtype)
        for column in range(width):
            file.seek(begin + (column * total + start) * size)
            array[:, column] = np.frombuffer(file.read(count * size), header.dtype, count)
        yield array
    if whole < total:
        raise Damage(f"it has {whole} of {total} rows")


@dataclass(frozen=True)
class NpzPart:
    """The one part of an `.npz` file."""

    name: str
    rows: int
    stamp: FileStamp
    columns: Columns

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        return watched(self._read(rows, metadata), self.stamp)

    def _read(self, rows: int, metadata: bool) -> Iterator[Block]:
        with ExitStack() as open_files:
            archive = open_files.enter_context(zipfile.ZipFile(self.name))
            readers = {}
            for name in self.columns.wanted(metadata):
                member = open_files.enter_context(archive.open(name + _SUFFIX))
                readers[name] = _row_blocks(member, _read_header(member, f"{self.name}:{name}"), rows)
            for start in range(0, self.rows, rows):
                arrays = {name: next(reader, None) for name, reader in readers.items()}
                short = [name for name, array in arrays.items() if array is None]
                if short:
                    raise Damage(f"{short[0]} ends")
                yield self._block({name: array for name, array in arrays.items() if array is not None}, start)

    def _block(self, arrays: dict[str, np.ndarray], start: int) -> Block:
        vectors = as_float32(arrays[self.columns.vector])
        count = min(map(len, arrays.values()))  # of a damaged array, only the whole rows
        ids = _numbered(start, count)
        if self.columns.id is not None:
            ids = ids_of(_column(arrays[self.columns.id][:count]), self.name, self.columns.id, start)
        kept = {name: _column(arrays[name][:count]) for name in self.columns.metadata if name in arrays}
        return Block(ids, vectors[:count], pa.table(kept) if kept else None)


def _numbered(start: int, count: int) -> pa.Array:
    return pa.array(np.arange(start, start + count, dtype=np.int64))


def _column(array: np.ndarray) -> pa.Array:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.ndim == 1:
        return pa.array(native.tolist() if native.dtype.kind in "US" else native)
    return pa.FixedSizeListArray.from_arrays(_column(native.reshape(-1)), prod(native.shape[1:]))


@dataclass(frozen=True)
class NumpyDump:
    """A `.npy` or `.npz` file."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[NpyPart | NpzPart]:
        """See `Dump`; reads the arrays' headers.

        Raises:
            BrokenDump: the file cannot be opened, or is no such file.
            ValueError: the vectors' array is none of real numbers [N, D], or cannot be told from others.
        """
        stamp = open_stamped(self.address)
        if self.address.lower().endswith(".npz"):
            return [self._npz(stamp)]
        with open(self.address, "rb") as file:
            header = _read_header(file, self.address)
        _refuse_others(header, self.address)
        return [NpyPart(self.address, header.shape[0], stamp)]

    def _npz(self, stamp: FileStamp) -> NpzPart:
        headers: dict[str, _Header] = {}
        try:
            with zipfile.ZipFile(self.address) as archive:
                for member in archive.namelist():
                    if member.endswith(_SUFFIX):
                        with archive.open(member) as stream:
                            headers[member.removesuffix(_SUFFIX)] = _read_header(stream, f"{self.address}:{member}")
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise BrokenDump(f"--vectors {self.address}: is no whole .npz file ({error}); fetch it anew") from error
        held = [name for name, header in headers.items() if header.holds_vectors()]
        named = self.settings.name if self.settings.name is not None else self.settings.column
        vector = choose_vector(named, held, list(headers), self.address)
        _refuse_others(headers[vector], f"{self.address}:{vector}")
        total = headers[vector].shape[0]
        id_column = choose_id(self.settings, list(headers), self.address, DEFAULT_ID)
        ids = None if id_column is None else headers[id_column]
        if ids is not None and (ids.shape != (total,) or ids.dtype.kind not in "iuU"):
            raise ValueError(
                f"--vectors {self.address}: {id_column!r} is {ids.dtype} of shape {ids.shape}, but ids are {total} "
                "integers or strings; name another with id_column"
            )
        metadata = self._metadata(headers, {vector, id_column}, total)
        columns = Columns(vector, id_column, metadata)
        for name in columns.wanted(True):
            if headers[name].fortran and len(headers[name].shape) > 1:
                raise ValueError(
                    f"--vectors {self.address}: {name!r} lies in Fortran order, which cannot be read out of a zip row "
                    "by row; save it with numpy.ascontiguousarray, or as .npy"
                )
        return NpzPart(self.address, total, stamp, columns)

    def _metadata(self, headers: dict[str, _Header], taken: set[str | None], total: int) -> tuple[str, ...]:
        names = choose_metadata(self.settings, list(headers), taken, self.address)
        fit = [name for name in names if headers[name].holds_metadata(total)]
        others = [name for name in names if name not in fit]
        if others and self.settings.metadata is not None:
            header = headers[others[0]]
            raise ValueError(
                f"--vectors {self.address}: {others[0]!r} is {header.dtype} of shape {header.shape}, not {total} plain "
                "values of a type that Arrow has; take it out of metadata"
            )
        if others:
            logger.warning("%s: not read as metadata: %s", self.address, ", ".join(others))
        return tuple(fit)
