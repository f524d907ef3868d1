"""Which columns of a table hold the vectors, the ids and the metadata, judged on its Arrow schema.

A column can hold vectors if it is a list, large list, list view or fixed-size list (or a tensor of one axis) of real
numbers. What it does not do: it looks at no row (see `arrow_rows`).
"""

from dataclasses import dataclass

import pyarrow as pa

from embinv.data.dumps.settings import DumpSettings

DEFAULT_COLUMN = "embedding"
DEFAULT_ID = "id"


@dataclass(frozen=True)
class Columns:
    """The columns of a dump.

    Attributes:
        vector: its name.
        id: its name, or None where rows are numbered.
        metadata: names, in the order of the store.
    """

    vector: str
    id: str | None
    metadata: tuple[str, ...]

    def wanted(self, metadata: bool) -> list[str]:
        """The names to read."""
        ids = [] if self.id is None else [self.id]
        return list(dict.fromkeys([*ids, self.vector, *(self.metadata if metadata else ())]))


def choose_columns(
    schema: pa.Schema, settings: DumpSettings, where: str, default_id: str | None = DEFAULT_ID
) -> Columns:
    """Chooses the columns of a table.

    Args:
        schema: of the table.
        settings: what the user says.
        where: address of the dump or file, for messages.
        default_id: what an id's column is called if the user does not say.

    Raises:
        ValueError: a named column is absent or of the wrong type, or several could hold the vectors.
    """
    held = [name for name in schema.names if holds_vectors(schema.field(name).type)]
    vector = choose_vector(settings.column, held, schema.names, where)
    if vector not in held:
        raise ValueError(
            f"--vectors {where}: column {vector!r} is {schema.field(vector).type}, expected lists of numbers; "
            f"{_name_another(held)}"
        )
    id_column = choose_id(settings, schema.names, where, default_id)
    if id_column is not None and id_type(schema.field(id_column).type) is None:
        raise ValueError(
            f"--vectors {where}: column {id_column!r} is {schema.field(id_column).type}, but ids are integers or "
            "strings; name another with id_column"
        )
    return Columns(vector, id_column, choose_metadata(settings, schema.names, {vector, id_column}, where))


def choose_vector(named: str | None, held: list[str], names: list[str], where: str) -> str:
    """The vectors' column: the one named, else `embedding`, else the only one that holds vectors.

    Args:
        named: by the user.
        held: the columns that hold vectors.
        names: all columns.
        where: address, for messages.

    Raises:
        ValueError: there is none, or several could be meant.
    """
    if named is not None:
        if named not in names:
            raise ValueError(
                f"--vectors {where}: no column {named!r}, it has {', '.join(names) or 'none'}; {_name_another(held)}"
            )
        return named
    if DEFAULT_COLUMN in names:
        return DEFAULT_COLUMN
    if len(held) == 1:
        return held[0]
    if not held:
        raise ValueError(
            f"--vectors {where}: no column holds lists of numbers, it has {', '.join(names) or 'no columns'}; "
            "give the dump that holds the vectors"
        )
    raise ValueError(f"--vectors {where}: several columns could hold the vectors; {_name_another(held)}")


def choose_id(settings: DumpSettings, names: list[str], where: str, default: str | None = DEFAULT_ID) -> str | None:
    """The ids' column, or None where rows are numbered.

    Raises:
        ValueError: the named one is absent.
    """
    named = settings.id_column
    if named is not None and named not in names:
        raise ValueError(
            f"--vectors {where}: no column {named!r}, it has {', '.join(names) or 'none'}; name one of them with "
            "id_column, or none to number the rows"
        )
    return named if named is not None else default if default in names else None


def choose_metadata(settings: DumpSettings, names: list[str], taken: set[str | None], where: str) -> tuple[str, ...]:
    """The other columns: those named, or all.

    Raises:
        ValueError: a named one is absent.
    """
    if settings.metadata is None:
        return tuple(name for name in names if name not in taken)
    missing = [name for name in settings.metadata if name not in names]
    if missing:
        raise ValueError(
            f"--vectors {where}: no column {missing[0]!r}, it has {', '.join(names) or 'none'}; mend metadata"
        )
    return tuple(name for name in dict.fromkeys(settings.metadata) if name not in taken)


def choose_name(named: str | None, there: list[str], where: str, noun: str) -> str:
    """Which table, collection or index: the one named, or the only one.

    Raises:
        ValueError: it is absent, or there are none or several and none was named.
    """
    if named is not None:
        if named not in there:
            raise ValueError(f"--vectors {where}: no {noun} {named!r}, it has {', '.join(there) or 'none'}; mend name")
        return named
    if len(there) == 1:
        return there[0]
    if not there:
        raise ValueError(f"--vectors {where}: holds no {noun} of vectors; give the place where they were written")
    raise ValueError(f"--vectors {where}: holds several, {', '.join(there)}; choose the {noun} with name")


def holds_vectors(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold vectors."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return len(kind.shape) == 1 and is_real(kind.value_type)
    return is_listed(kind) and is_real(kind.value_type)


def is_listed(kind: pa.DataType) -> bool:
    """Whether it is a list of any kind."""
    types = pa.types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def is_real(kind: pa.DataType) -> bool:
    """Whether it is an integer or a float of any width."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def id_type(kind: pa.DataType) -> pa.DataType | None:
    """int64 for integers that all fit, string for strings, UUIDs and uint64; None for what is no id."""
    types = pa.types
    if types.is_dictionary(kind):
        return id_type(kind.value_type)
    if types.is_integer(kind) and not types.is_uint64(kind):
        return pa.int64()
    textual = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return pa.string() if textual or types.is_uint64(kind) or isinstance(kind, pa.UuidType) else None


def _name_another(held: list[str]) -> str:
    return f"name one of {', '.join(held)} with column" if held else "no other column holds vectors either"
