"""Tables of PostgreSQL with pgvector: types, order, names; secrets; connections that end."""

import uuid

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from embinv.data.dumps.base import BrokenDump
from embinv.data.dumps.opening import DumpSettings, open_dump
from embinv.data.dumps.postgres import without_secrets


@pytest.fixture
def database(server):
    """A connection to an empty schema `own`, on the search path of nobody."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS own CASCADE")
        connection.execute("CREATE SCHEMA own")
        yield connection


def part_of(server, **settings):
    (part,) = open_dump(server, DumpSettings(**settings)).parts()
    return part


def read(server, rows=10, **settings):
    return list(part_of(server, **settings).blocks(rows))


def test_halfvec_and_types_of_metadata(server, database):
    database.execute(
        "CREATE TABLE own.t (id uuid PRIMARY KEY, v halfvec, n int, x real, b bool, s text, a text[], j jsonb, "
        "d timestamp, q numeric, e bytea)"
    )
    own = uuid.UUID(int=5)
    database.execute(
        "INSERT INTO own.t VALUES (%s, '[1,0.5,65504]', 3, 0.5, true, 'é', '{x,NULL}', '{\"k\": 1}', "
        "'2020-01-02 03:04', 1.50, '\\x00ff')",
        [own],
    )
    (block,) = read(server, name="own.t")
    assert block.ids.equals(pa.array([str(own)]))
    np.testing.assert_array_equal(block.vectors, np.array([[1, 0.5, 65504]], np.float32))
    assert block.metadata.to_pylist() == [
        {"n": 3, "x": 0.5, "b": True, "s": "é", "a": ["x", None], "j": '{"k": 1}', "d": "2020-01-02 03:04:00",
         "q": "1.50", "e": "\\x00ff"}
    ]  # fmt: skip


def test_names_are_quoted_whatever_is_in_them(server, database):
    database.execute('CREATE TABLE own."T; DROP TABLE x" ("the ""Id""" int, "v %s {}" vector(1))')
    database.execute("INSERT INTO own.\"T; DROP TABLE x\" VALUES (2, '[2]'), (1, '[1]')")
    (block,) = read(server, name="own.T; DROP TABLE x", id_column='the "Id"')
    assert block.ids.to_pylist() == [1, 2] and block.vectors.tolist() == [[1], [2]]


def test_rows_are_ordered_by_id_else_by_primary_key_else_as_they_are_stored(server, database):
    database.execute("CREATE TABLE own.a (k text PRIMARY KEY, v vector(1))")
    database.execute("CREATE TABLE own.b (v vector(1), n int)")
    database.execute("CREATE TABLE own.c (id int, v vector(1))")
    for table, columns in (("a", "k, v"), ("b", "n, v"), ("c", "id, v")):
        database.execute(f"INSERT INTO own.{table} ({columns}) VALUES (3, '[3]'), (1, '[1]'), (2, '[2]')")
    database.execute("INSERT INTO own.c VALUES (1, '[7]')")
    assert [block.ids.to_pylist() for block in read(server, 2, name="own.a")] == [["1", "2"], ["3"]]
    (block,) = read(server, name="own.b")
    assert block.ids.to_pylist() == [0, 1, 2] and block.vectors[:, 0].tolist() == [3, 1, 2]
    (block,) = read(server, name="own.c")  # of one id, as they are stored
    assert block.ids.to_pylist() == [1, 1, 2, 3] and block.vectors[:, 0].tolist() == [1, 7, 2, 3]


def test_ids_that_become_strings_keep_their_own_order(server, database):
    database.execute("CREATE TABLE own.t (id numeric PRIMARY KEY, v vector(1))")
    database.execute("INSERT INTO own.t VALUES (10, '[10]'), (9, '[9]'), (100, '[100]')")
    assert read(server, name="own.t")[0].ids.to_pylist() == ["9", "10", "100"]


@pytest.mark.parametrize(
    ("kind", "values", "ids"),
    [("real", ("10.5", "9"), ["9", "10.5"]), ("float8", ("1e300", "0.1"), ["0.1", "1e+300"]),
     ("bool", ("true", "false"), ["false", "true"]), ("int[]", ("'{10}'", "'{9,1}'"), ["{9,1}", "{10}"]),
     ("int2", ("10", "9"), [9, 10])],
)  # fmt: skip
def test_ids_that_are_neither_integers_nor_text_are_read_as_postgresql_writes_them(server, database, kind, values, ids):
    database.execute(f"CREATE TABLE own.t (k {kind} PRIMARY KEY, s {kind}, v vector(1))")
    database.execute(f"INSERT INTO own.t VALUES ({values[0]}, NULL, '[1]'), ({values[1]}, NULL, '[1]')")
    (block,) = read(server, name="own.t")
    assert block.ids.to_pylist() == ids
    (block,) = read(server, name="own.t", id_column="k", metadata=["s", "k"])
    assert block.ids.to_pylist() == ids and block.metadata.column_names == ["s"]


def test_a_view_needs_a_column_to_order_it_by(server, database):
    database.execute("CREATE TABLE own.t (n int, v vector(1))")
    database.execute("INSERT INTO own.t VALUES (2, '[2]'), (1, '[1]'), (0, NULL)")
    database.execute("CREATE VIEW own.w AS SELECT * FROM own.t WHERE v IS NOT NULL")
    with pytest.raises(ValueError, match=r"\(own.w\): its rows have no order; name .* with id_column"):
        read(server, name="own.w")
    assert read(server, name="own.w", id_column="n")[0].ids.to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("(1, '[1]'), (2, NULL)", r"\(own.t\): row 1 of 'v' is null; delete the row"),
        ("(1, '[1]'), (2, '[1,2]')", r"\(own.t\): row 1 of 'v' has 2 numbers, those before have 1"),
        ("(1, '[1]'), (NULL, '[1]')", r"\(own.t\): row 1 of 'id' is null; give every row an id"),
    ],
)
@pytest.mark.parametrize("block", [1, 10])
def test_a_bad_row_is_named_with_the_fix(server, database, rows, message, block):
    database.execute("CREATE TABLE own.t (id int, v vector)")
    database.execute(f"INSERT INTO own.t VALUES {rows}")
    with pytest.raises(ValueError, match=message):
        read(server, block, name="own.t")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "holds several, .*own.a, own.b.*; choose the table with name"),
        ({"name": "own.c"}, "no table 'own.c'; tables of vectors are .*own.a, own.b"),
        ({"name": "own.a"}, "several columns could hold the vectors; name one of v, w with column"),
        ({"name": "own.a", "column": "n"}, "'n' is int4, expected vector or halfvec; name one of v, w"),
        ({"name": "own.b", "metadata": ["x"]}, "no column 'x', it has v; mend metadata"),
    ],
)
def test_a_choice_that_cannot_be_made_is_said_with_the_way_out(server, database, settings, message):
    database.execute("CREATE TABLE own.a (v vector(1), w vector(2), n int)")
    database.execute("CREATE TABLE own.b (v vector(1))")
    with pytest.raises(ValueError, match=message):
        read(server, **settings)


def test_all_blocks_are_of_one_state_of_the_table(server, database):
    database.execute("CREATE TABLE own.t (id int, v vector(1))")
    database.execute("INSERT INTO own.t SELECT i, '[1]' FROM generate_series(1, 6) i")
    blocks = part_of(server, name="own.t").blocks(2)
    found = next(blocks).ids.to_pylist()
    database.execute("DELETE FROM own.t WHERE id > 3")
    database.execute("INSERT INTO own.t VALUES (9, '[1]')")
    assert found + [each for block in blocks for each in block.ids.to_pylist()] == [1, 2, 3, 4, 5, 6]


def test_a_table_that_changed_since_it_was_opened_is_said(server, database):
    database.execute("CREATE TABLE own.t (id int, v vector(1))")
    part = part_of(server, name="own.t")
    database.execute("INSERT INTO own.t VALUES (9, '[1]')")
    with pytest.raises(BrokenDump, match=r"\(own.t\): had 0 rows when it was opened, now 1; .*same command goes on"):
        list(part.blocks(2))


def test_a_connection_that_ends_is_said_with_the_row_and_the_dump_can_be_read_again(server, database):
    database.execute("CREATE TABLE own.t (id int, v vector(1))")
    database.execute("INSERT INTO own.t SELECT i, '[1]' FROM generate_series(0, 999) i")
    part = part_of(server, name="own.t")
    blocks = part.blocks(100)
    next(blocks)
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'FETCH %'")
    with pytest.raises(BrokenDump, match=r"\(own.t\): stopped answering at row 100 .*the same command goes on"):
        list(blocks)
    assert sum(map(len, part.blocks(300))) == 1000


def test_nothing_can_be_written_while_reading(server):
    from embinv.data.dumps.postgres import _connected

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), _connected(server) as connection:
        connection.execute("CREATE TABLE t (a int)")


@pytest.mark.parametrize(
    "address",
    ["postgresql://me:hush@localhost/db", "postgres://localhost/db?user=me&password=hush",
     "postgresql://me@localhost/db?host=/tmp&sslpassword=hush",
     "postgresql://me:p#hush@host/db", "postgresql://me:p?hush@host/db", "postgresql://me:p/hush@host/db",
     "postgresql://host/db#?password=hush",  # as libpq cuts them, and urllib does not
     "postgresql://me:a@hush@host/db", "postgresql://host:5432/db?password=a@hush", "postgresql://me@h/db?p%61ssword=hush",
     "postgresql://me:hush?password=hush@host/db", "postgresql://host/db%3Fpassword=hush"],
)  # fmt: skip
def test_a_password_in_the_address_is_refused_and_not_repeated(address):
    with pytest.raises(ValueError, match=r"holds a password.*PGPASSWORD.*~/.pgpass") as caught:
        open_dump(address)
    assert "hush" not in str(caught.value) and "--vectors postgres" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["postgresql://me@host:5432/db?sslmode=require&application_name=a%40b", "postgresql://[::1]:5432/db", "postgresql://me:@/db",
     "postgresql:///db?host=/tmp:/x&passfile=/y", "postgres://me@h1:1,h2:2/db?require_auth=password"],
)  # fmt: skip
def test_an_address_without_a_password_is_shown_as_it_is(address):
    assert open_dump(address).address == without_secrets(address) == address


def test_a_server_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BrokenDump, match=r"--vectors postgresql://.*: the server does not answer as it should"):
        open_dump(f"postgresql://me@/db?host={tmp_path}").parts()
