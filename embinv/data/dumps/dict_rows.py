"""From rows as dictionaries, which stores without a schema give, to blocks.

A vector is a list of numbers; an id is an integer or a string, of one kind in the whole dump. Metadata is a column for
each key that occurs in the block. Values that Arrow cannot hold in one column (a number here, a string there) become
JSON texts, and half of a surrogate pair, which is no character, becomes U+FFFD.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from embinv.data.dumps.arrow_rows import as_float32, null_id, uneven_rows

logger = logging.getLogger(__name__)

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)


def vector_of(value: object, where: str, name: str, row: int, dim: int | None) -> np.ndarray:
    """One vector.

    Args:
        value: what the store has.
        where: file or collection, for messages.
        name: of the field.
        row: its number, for messages.
        dim: D of the rows before, if there were any.

    Returns:
        [D] float32.

    Raises:
        ValueError: it is null, no list of numbers, or of another length.
    """
    if value is None:
        raise ValueError(f"{where}: row {row} has no {name!r}, or null; remove the row or encode it again")
    try:
        numbers = np.array(value) if isinstance(value, list | np.ndarray) else None
    except ValueError:  # lists of different lengths in it
        numbers = None
    if numbers is None or numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "fiu":
        raise ValueError(f"{where}: row {row} of {name!r} is no list of numbers; remove the row or encode it again")
    if dim not in (None, len(numbers)):
        raise uneven_rows(where, name, row, len(numbers), dim or 0)
    return as_float32(numbers)


def id_array(values: Sequence[object], where: str, name: str, first_row: int, kind: type | None) -> pa.Array:
    """Ids as int64 or string.

    Args:
        values: [n] integers or strings.
        where: file or collection, for messages.
        name: of the field.
        first_row: number of the first, for messages.
        kind: int or str, whichever the dump's first id is.

    Raises:
        ValueError: one is null, of the other kind, or neither.
    """
    for row, value in enumerate(values, start=first_row):
        if value is None:
            raise null_id(where, name, row)
        if not isinstance(value, int | str) or isinstance(value, bool):
            raise ValueError(
                f"{where}: row {row} of {name!r} is a {type(value).__name__}, but ids are integers or strings; name "
                "another id_column"
            )
        if kind is not None and not isinstance(value, kind):
            raise ValueError(
                f"{where}: row {row} of {name!r} is a {type(value).__name__}, those before are {kind.__name__}; write "
                "every id as a string"
            )
        if isinstance(value, int) and value not in _INT64:
            raise ValueError(f"{where}: row {row} of {name!r} is past 64 bits; write every id as a string")
    if kind is str:
        return _column([_whole(value) for value in values])
    return pa.array(values, pa.int64())


def metadata_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None, taken: set[str]) -> pa.Table:
    """The other fields of rows as columns.

    Args:
        rows: [n].
        names: of the fields, or None for all that occur, in the order of their first occurrence.
        taken: fields that are no metadata.

    Returns:
        [n] rows, null where a row lacks a field; without a column, but of n rows, if there is no field.
    """
    fields = dict.fromkeys(names) if names is not None else {name: None for row in rows for name in row}
    columns = {name: _column([row.get(name) for row in rows]) for name in fields if name not in taken}
    if not columns:
        return pa.table({"none": pa.nulls(len(rows))}).select([])
    return pa.table({_whole(name): column for name, column in columns.items()})


class Unseen:
    """Fields that were asked for by their names and have occurred in no row so far."""

    def __init__(self, names: Sequence[str] | None) -> None:
        self.names = set(names or ())

    def look_at(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Strikes out those that these rows have."""
        for row in rows:
            if not self.names:
                return
            self.names -= row.keys()

    def warn(self, where: str) -> None:
        """Says which never occurred, once all rows have been looked at."""
        if self.names:
            logger.warning("%s: no row has %s; mend metadata", where, ", ".join(map(repr, sorted(self.names))))


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError):
        pass
    values = [_whole(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError):
        return pa.array(
            [
                value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
                for value in values
            ],
            pa.string(),
        )


def _whole(value: Any) -> Any:
    """Without halves of surrogate pairs."""
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value
