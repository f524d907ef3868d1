"""Vectors in a table of PostgreSQL with pgvector: `postgresql://user@host:port/database`, types `vector` and `halfvec`.

`name` picks the table, as `table` or `schema.table`; views do too. All rows come out of one read-only transaction at
REPEATABLE READ through a server-side cursor, so that who writes meanwhile changes nothing; they are ordered by the id:
`id_column`, else `id`, else a primary key of one column. Without any, rows are numbered in the order in which the table
stores them. Numbers, booleans, strings and arrays of strings and integers keep their types, all else (JSON, times,
UUIDs) is read as PostgreSQL writes it, and so are ids that are neither integers nor text. What it does not do: write,
nor take a password from the address.

n rows of a block, D embedding.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from embinv.data.dumps.arrow_rows import as_float32, null_id, uneven_rows
from embinv.data.dumps.base import Block, BrokenDump
from embinv.data.dumps.columns import DEFAULT_ID, choose_id, choose_metadata, choose_name, choose_vector
from embinv.data.dumps.libraries import import_library
from embinv.data.dumps.settings import DumpSettings
from embinv.data.dumps.stamps import GO_ON

SCHEMES = ("postgresql", "postgres")
_SECRET = re.compile(r"(ssl)?password\s*=", re.IGNORECASE)
_NUMBERS = {"vector": ">f4", "halfvec": ">f2"}  # as their binary form has them, behind a head
_HEAD_BYTES = 4
_INTEGERS = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}
_KEPT = {
    **_INTEGERS,
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
    "_int4": pa.list_(pa.int32()),
    "_int8": pa.list_(pa.int64()),
    "_text": pa.list_(pa.string()),
}
_ID_KINDS = (*_INTEGERS, "text")
_TABLES = """
    SELECT DISTINCT n.nspname || '.' || c.relname
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE t.typname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1"""
_COLUMNS = """
    SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
_UNIQUE = """
    SELECT a.attname, i.indisprimary FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = %s AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL AND i.indisvalid"""


@dataclass(frozen=True)
class PostgresPart:
    """The one part of a table.

    Attributes:
        address: of the database.
        table: schema and name.
        vector: name and type of the column.
        id: name and type of the column, None where rows are numbered.
        metadata: names and types of the columns.
        stored_order: whether rows of one id, or without any, come in the order in which the table stores them.
    """

    name: str
    rows: int
    address: str
    table: tuple[str, str]
    vector: tuple[str, str]
    id: tuple[str, str] | None
    metadata: tuple[tuple[str, str], ...]
    stored_order: bool

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """See `Part`."""
        import psycopg

        start, dim = 0, None
        try:
            with _connected(self.address) as connection:
                self._refuse_changed(connection)
                with connection.cursor(name="embinv", binary=True) as cursor:
                    cursor.execute(self._query(metadata))
                    while held := cursor.fetchmany(rows):
                        block = self._block(list(zip(*held, strict=True)), start, dim, metadata)
                        dim = block.vectors.shape[1]
                        yield block
                        start += len(block)
        except psycopg.Error as error:
            raise BrokenDump(
                f"{self.name}: stopped answering at row {start} ({_reason(error)}); when it is up again, {GO_ON}"
            ) from error

    def _refuse_changed(self, connection: Any) -> None:
        count = _count(connection, self.table)
        if count != self.rows:
            raise BrokenDump(
                f"{self.name}: had {self.rows} rows when it was opened, now {count}; let nobody write to it, or read a "
                f"copy: {GO_ON} if the rows before are the same"
            )

    def _query(self, metadata: bool) -> Any:
        from psycopg import sql

        columns: list[sql.Composable] = [sql.Identifier(self.vector[0])]
        if self.id:
            columns.append(_selected(*self.id, _ID_KINDS))
        columns += [_selected(*each, _KEPT) for each in (self.metadata if metadata else ())]
        order: list[sql.Composable] = [sql.Identifier("kept", self.id[0])] if self.id else []
        if self.stored_order:
            order += [sql.Identifier("kept", "tableoid"), sql.Identifier("kept", "ctid")]
        return sql.SQL("SELECT {} FROM {} AS kept ORDER BY {}").format(
            sql.SQL(", ").join(columns), sql.Identifier(*self.table), sql.SQL(", ").join(order)
        )

    def _block(self, columns: Sequence[Sequence[Any]], start: int, dim: int | None, metadata: bool) -> Block:
        vectors = _matrix(columns[0], self.vector, self.name, start, dim)
        others = list(columns[1:])
        if self.id is None:
            ids = pa.array(np.arange(start, start + len(vectors), dtype=np.int64))
        else:
            values = others.pop(0)
            if None in values:
                raise null_id(self.name, self.id[0], start + values.index(None))
            ids = pa.array(values, pa.int64() if self.id[1] in _INTEGERS else pa.string())
        if not metadata or not self.metadata:
            return Block(ids, vectors)
        kept = {
            name: pa.array(values, _KEPT.get(kind, pa.string()))
            for (name, kind), values in zip(self.metadata, others, strict=True)
        }
        return Block(ids, vectors, pa.table(kept))


@dataclass(frozen=True)
class PostgresDump:
    """A table with vectors."""

    address: str
    settings: DumpSettings

    def parts(self) -> list[PostgresPart]:
        """See `Dump`; counts the table's rows.

        Raises:
            BrokenDump: the server does not answer, or refuses.
            MissingLibrary: psycopg is not installed.
            ValueError: the table, or the vectors' column, cannot be told.
        """
        psycopg = import_library("psycopg", "pgvector", self.address)
        try:
            with _connected(self.address) as connection:
                return [self._part(connection)]
        except psycopg.Error as error:
            raise BrokenDump(
                f"--vectors {self.address}: the server does not answer as it should ({_reason(error)}); check address, "
                "rights, and PGPASSWORD or ~/.pgpass"
            ) from error

    def _part(self, connection: Any) -> PostgresPart:
        schema, table, kind, number = self._table(connection)
        where = f"{self.address} ({schema}.{table})"
        types = dict(connection.execute(_COLUMNS, [number]).fetchall())
        held = [name for name, each in types.items() if each in _NUMBERS]
        vector = choose_vector(self.settings.column, held, list(types), where)
        if vector not in held:
            raise ValueError(
                f"--vectors {where}: column {vector!r} is {types[vector]}, expected vector or halfvec; name "
                f"{'one of ' + ', '.join(held) if held else 'another table'}"
            )
        unique = dict(connection.execute(_UNIQUE, [number]).fetchall())
        primary = next((name for name, is_primary in unique.items() if is_primary), None)
        default = DEFAULT_ID if DEFAULT_ID in types else primary
        id_column = choose_id(self.settings, list(types), where, default)
        stores_rows = kind in "rpm"
        if id_column is None and not stores_rows:
            raise ValueError(
                f"--vectors {where}: its rows have no order; name a column to order them by with id_column"
            )
        metadata = choose_metadata(self.settings, list(types), {vector, id_column}, where)
        return PostgresPart(
            name=where,
            rows=_count(connection, (schema, table)),
            address=self.address,
            table=(schema, table),
            vector=(vector, types[vector]),
            id=None if id_column is None else (id_column, types[id_column]),
            metadata=tuple((name, types[name]) for name in metadata),
            stored_order=stores_rows and id_column not in unique,
        )

    def _table(self, connection: Any) -> tuple[str, str, str, int]:
        """Schema, name, kind and number of the table."""
        from psycopg import sql

        there = [name for (name,) in connection.execute(_TABLES, [list(_NUMBERS)]).fetchall()]
        name = self.settings.name
        if name is None:
            name = choose_name(None, there, self.address, "table")
        quoted = sql.Identifier(*name.split(".", 1)).as_string(connection)
        found = connection.execute(
            "SELECT n.nspname, c.relname, c.relkind::text, c.oid FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)",
            [quoted],
        ).fetchone()
        if found is None:
            raise ValueError(
                f"--vectors {self.address}: no table {name!r}; tables of vectors are {', '.join(there) or 'none'}; "
                "mend name"
            )
        return found


def refuse_secrets(address: str) -> None:
    """Refuses an address with a password in it, which other users of the machine could see.

    Raises:
        ValueError: it has one; the message has not.
    """
    shown = without_secrets(address)
    if shown != address:
        raise ValueError(
            f"--vectors {shown}: holds a password, which a list of processes shows to others; take it out, and put it "
            "into the environment as PGPASSWORD, or into ~/.pgpass (an @ in a value behind the host is written %40)"
        )


def without_secrets(address: str) -> str:
    """The address, cut where it may hold a password; as it is if it holds none.

    The raw text is judged, since libraries disagree on where `/`, `?` and `#` end a password: what lies between the
    first `:` behind `://` and the last `@` may be one, and so may all behind a `password=`.
    """
    scheme, slashes, rest = address.partition("://")
    plain = unquote(rest)
    if _SECRET.search(plain):
        return scheme + slashes + re.split(rf"[:?]|{_SECRET.pattern}", plain, maxsplit=1, flags=re.IGNORECASE)[0]
    user, at, host = rest.rpartition("@")
    name, _, secret = user.partition(":")
    return f"{scheme}{slashes}{name}{at}{host}" if secret else address


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """A connection in one transaction that sees one state of the database and writes nothing."""
    import psycopg

    with psycopg.connect(address) as connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield connection


def _selected(name: str, kind: str, kept: Collection[str]) -> Any:
    """A column as it is read: kinds that are not kept are read as PostgreSQL writes them."""
    from psycopg import sql

    return sql.SQL("{}" if kind in kept else "{}::text").format(sql.Identifier(name))


def _count(connection: Any, table: tuple[str, str]) -> int:
    from psycopg import sql

    return connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*table))).fetchone()[0]


def _matrix(
    values: Sequence[bytes | None], column: tuple[str, str], where: str, first_row: int, dim: int | None
) -> np.ndarray:
    """[n, D] float32 from pgvector's binary form: two int16, of which the first is D, and D numbers, big-endian."""
    name, kind = column
    number = np.dtype(_NUMBERS[kind])
    whole: list[bytes] = []
    for row, value in enumerate(values, start=first_row):
        if value is None:
            raise ValueError(f"{where}: row {row} of {name!r} is null; delete the row, or read a view without it")
        length = (len(value) - _HEAD_BYTES) // number.itemsize
        dim = length if dim is None else dim
        if length != dim:
            raise uneven_rows(where, name, row, length, dim)
        whole.append(value)
    rows = np.frombuffer(b"".join(whole), np.uint8).reshape(len(whole), -1)[:, _HEAD_BYTES:]
    return as_float32(np.ascontiguousarray(rows).view(number))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
