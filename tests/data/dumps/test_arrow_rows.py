"""Arrow lists as a matrix, and ids of many types."""

import uuid

import numpy as np
import pyarrow as pa
import pytest

from embinv.data.dumps.arrow_rows import blocks_of, ids_of, matrix_of
from embinv.data.dumps.columns import Columns, choose_columns
from embinv.data.dumps.settings import DumpSettings

ROWS = [[1.0, -2.0, 0.5], [0.25, 4.0, 8.0], [3.0, 1.0, 0.0]]
NUMBERS = ("float16", "float32", "float64", "int8", "int64", "uint16")


def lists(kind, rows=ROWS):
    return pa.array(np.array(rows).tolist(), pa.list_(pa.float64())).cast(kind)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("form", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3), pa.list_view])
def test_lists_of_every_form_and_number_become_float32(form, number):
    exact = np.array(ROWS) if number.startswith("float") else np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    kind = pa.type_for_alias(number)
    column = pa.array([[kind.to_pandas_dtype()(x) for x in row] for row in exact], form(kind))
    found = matrix_of(column, "dump", "embedding", 0)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_array_equal(matrix_of(column.slice(1, 1), "dump", "embedding", 1, 3), exact[1:2])


def test_chunks_are_one_matrix():
    column = pa.chunked_array([lists(pa.list_(pa.float32())), lists(pa.list_(pa.float32()))])
    np.testing.assert_array_equal(matrix_of(column, "dump", "embedding", 0), ROWS * 2)


def test_what_overflows_float32_is_infinite():
    assert np.isinf(matrix_of(pa.array([[1e300, 1.0]]), "dump", "embedding", 0)).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0], None], "dump: row 11 of 'embedding' is null; remove"),
        ([[1.0, 2.0], [1.0, None]], "dump: row 11 of 'embedding' holds a null among its numbers; remove"),
        ([[1.0, 2.0], [1.0]], "dump: row 11 of 'embedding' has 1 numbers, those before have 2; .* take the others out"),
    ],
)
def test_a_bad_vector_is_named_with_its_row_and_the_fix(rows, message):
    with pytest.raises(ValueError, match=message):
        matrix_of(pa.array(rows, pa.list_(pa.float32())), "dump", "embedding", 10)


def test_a_null_behind_a_slice_of_fixed_size_lists_is_found():
    column = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    np.testing.assert_array_equal(matrix_of(column.slice(2), "dump", "embedding", 0), [[3, 4]])
    with pytest.raises(ValueError, match="row 1 of"):
        matrix_of(column, "dump", "embedding", 0)


def test_vectors_of_another_length_in_a_later_batch_are_named():
    batches = [pa.table({"embedding": [[1.0, 2.0]] * 3}), pa.table({"embedding": [[1.0, 2.0, 3.0]]})]
    blocks = blocks_of(batches, Columns("embedding", None, ()), "dump", 2, False)
    assert [len(next(blocks)), len(next(blocks))] == [2, 1]
    with pytest.raises(ValueError, match="row 3 of 'embedding' has 3 numbers, those before have 2"):
        next(blocks)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 2], pa.int16()), pa.array([1, 2], pa.int64())),
        (pa.array([1, 2**32 - 1], pa.uint32()), pa.array([1, 2**32 - 1], pa.int64())),
        (pa.array([1, 2**64 - 1], pa.uint64()), pa.array(["1", str(2**64 - 1)])),
        (pa.array(["a", "b"], pa.large_string()), pa.array(["a", "b"])),
        (pa.array(["a", "a"]).dictionary_encode(), pa.array(["a", "a"])),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), pa.array([str(uuid.UUID(int=5))])),
    ],
)
def test_ids_are_int64_where_their_type_fits_and_strings_else(values, expected):
    assert ids_of(values, "dump", "id", 0).equals(expected)


def test_an_id_that_is_null_is_named():
    with pytest.raises(ValueError, match="dump: row 6 of 'id' is null; give every row an id"):
        ids_of(pa.array([1, None]), "dump", "id", 5)


# Which columns


def schema(**columns):
    return pa.schema(list(columns.items()))


FLOATS = pa.list_(pa.float32())


def test_the_vectors_are_in_embedding_or_else_in_the_only_column_of_lists_of_numbers():
    both = schema(id=pa.int64(), tokens=pa.list_(pa.int32()), embedding=FLOATS)
    assert choose_columns(both, DumpSettings(), "dump") == Columns("embedding", "id", ("tokens",))
    one = schema(key=pa.int64(), vec=FLOATS, words=pa.list_(pa.string()))
    assert choose_columns(one, DumpSettings(), "dump") == Columns("vec", None, ("key", "words"))
    named = DumpSettings(column="tokens", id_column="id", metadata=[])
    assert choose_columns(both, named, "dump") == Columns("tokens", "id", ())


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"a": FLOATS, "b": FLOATS}, {}, "--vectors dump: several columns could .*; name one of a, b with column"),
        ({"a": pa.int64()}, {}, "--vectors dump: no column holds lists of numbers, it has a; give"),
        ({"a": FLOATS}, {"column": "x"}, "--vectors dump: no column 'x', it has a; name one of a with column"),
        (
            {"embedding": pa.string(), "b": FLOATS},
            {},
            "'embedding' is string, expected lists of numbers; name one of b",
        ),
        ({"a": FLOATS}, {"id_column": "x"}, "--vectors dump: no column 'x', it has a; .* id_column"),
        ({"a": FLOATS, "id": pa.float64()}, {}, "'id' is double, but ids are .*; name another with id_column"),
        ({"a": FLOATS}, {"metadata": ["x"]}, "--vectors dump: no column 'x', it has a; mend metadata"),
    ],
)
def test_a_choice_that_cannot_be_made_is_said_with_the_way_out(columns, settings, message):
    with pytest.raises(ValueError, match=message):
        choose_columns(schema(**columns), DumpSettings(**settings), "dump")
