"""From Arrow batches to blocks: lists to a matrix without a Python loop, ids to int64 or strings, the rest as it is.

n rows of a batch, D embedding. What it does not do: it opens nothing, and asks not which columns are meant (`columns`).
"""

import uuid
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from embinv.data.dumps.base import Block
from embinv.data.dumps.columns import Columns, id_type

Column: TypeAlias = pa.Array | pa.ChunkedArray


def blocks_of(
    batches: Iterable[pa.RecordBatch | pa.Table],
    columns: Columns,
    where: str,
    rows: int,
    metadata: bool,
    first_row: int = 0,
    ids_as_text: bool = False,
    added: dict[str, str] | None = None,
) -> Iterator[Block]:
    """Turns batches of any size into blocks.

    Args:
        batches: with the columns that `columns.wanted(metadata)` names.
        columns: which is which.
        where: file or table, for messages.
        rows: of a block at most.
        metadata: whether blocks have it.
        first_row: number of the first row in the dump, where rows are numbered.
        ids_as_text: makes strings of integer ids, because other parts of the dump have strings.
        added: metadata of one value for all rows, such as what a folder's name says.

    Yields:
        Blocks in order; vectors may be read-only views of the batch.

    Raises:
        ValueError: a vector or an id is null, vectors differ in length, or hold what is no number.
    """
    row, dim = 0, None
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            piece = batch.slice(start, rows)
            count = piece.num_rows
            vectors = matrix_of(piece[columns.vector], where, columns.vector, row, dim)
            dim = vectors.shape[1]
            if columns.id is None:
                ids = pa.array(np.arange(first_row + row, first_row + row + count, dtype=np.int64))
            else:
                ids = ids_of(piece[columns.id], where, columns.id, row)
            if ids_as_text:
                ids = ids.cast(pa.string())
            yield Block(ids, vectors, _metadata(piece, columns, added or {}) if metadata else None)
            row += count


def matrix_of(column: Column, where: str, name: str, first_row: int, dim: int | None = None) -> np.ndarray:
    """A column of lists of real numbers as a matrix.

    Args:
        column: [n] lists of any kind.
        where: file or table, for messages.
        name: of the column.
        first_row: number of its first row in `where`, for messages.
        dim: D of the rows before, if there were any.

    Returns:
        [n, D] float32, C order. What overflows float32 is infinite.

    Raises:
        ValueError: a list or a number in it is null, or lengths differ; the message names the first such row.
    """
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(lists, pa.ExtensionArray):
        lists = lists.storage
    if lists.null_count:
        bad = first_row + int(np.argmax(_is_null(lists)))
        raise ValueError(f"{where}: row {bad} of {name!r} is null; remove the row or encode it again")
    kind = lists.type
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        lengths = lists.sizes.to_numpy(zero_copy_only=False)
    elif pa.types.is_fixed_size_list(kind):
        lengths = np.full(len(lists), kind.list_size)
    else:
        lengths = np.diff(lists.offsets.to_numpy(zero_copy_only=False))
    width = dim if dim is not None else int(lengths[0]) if len(lengths) else 0
    uneven = np.flatnonzero(lengths != width)
    if len(uneven):
        raise uneven_rows(where, name, first_row + int(uneven[0]), int(lengths[uneven[0]]), width)
    numbers = lists.flatten()
    if numbers.null_count:
        bad = first_row + int(np.argmax(_is_null(numbers))) // width
        raise ValueError(f"{where}: row {bad} of {name!r} holds a null among its numbers; remove it or encode it again")
    return as_float32(numbers.to_numpy(zero_copy_only=False)).reshape(len(lists), width)


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """Real numbers as float32 in C order; what overflows is infinite, and is judged elsewhere."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(numbers, dtype=np.float32)


def uneven_rows(where: str, name: str, row: int, length: int, width: int) -> ValueError:
    """The error for vectors of different lengths."""
    return ValueError(
        f"{where}: row {row} of {name!r} has {length} numbers, those before have {width}; one dump holds vectors of "
        "one length: take the others out"
    )


def null_id(where: str, name: str, row: int) -> ValueError:
    """The error for a row without an id."""
    return ValueError(f"{where}: row {row} of {name!r} is null; give every row an id, or name another id_column")


def ids_of(column: Column, where: str, name: str, first_row: int) -> pa.Array:
    """A column of ids as int64 or string.

    Args:
        column: [n] integers, strings or UUIDs; dictionaries of them too.
        where: file or table, for messages.
        name: of the column.
        first_row: number of its first row in `where`, for messages.

    Raises:
        ValueError: one is null.
    """
    ids = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    if ids.null_count:
        raise null_id(where, name, first_row + int(np.argmax(_is_null(ids))))
    kind = id_type(ids.type)
    if kind is None:
        raise ValueError(
            f"{where}: column {name!r} is {ids.type}, but ids are integers or strings; name another with id_column"
        )
    if isinstance(ids.type, pa.UuidType):
        return pa.array([str(uuid.UUID(bytes=each.as_py())) for each in ids.storage], pa.string())
    return ids.cast(kind)


def _is_null(array: pa.Array) -> np.ndarray:
    return array.is_null().to_numpy(zero_copy_only=False)


def _metadata(piece: pa.RecordBatch | pa.Table, columns: Columns, added: dict[str, str]) -> pa.Table | None:
    if not columns.metadata and not added:
        return None
    kept = {name: piece[name] for name in columns.metadata}
    for name, value in added.items():
        kept[name] = pa.repeat(pa.scalar(value, pa.string()), piece.num_rows)
    return pa.table(kept)
