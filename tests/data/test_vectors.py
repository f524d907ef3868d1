import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embinv.data.vectors import check_embeddings, read_vectors

DIM = 4


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(3, DIM)).astype(np.float32)


def parquet(path, vectors, name="embedding", **columns):
    table = {"id": [10, 20, 30], name: list(vectors)} | columns
    pq.write_table(pa.table({key: value for key, value in table.items() if value is not None}), path)
    return path


# --- reading


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_npy_gives_its_rows_and_their_numbers_as_ids(tmp_path, dtype):
    values = np.arange(1, 13).reshape(3, DIM).astype(dtype)
    np.save(tmp_path / "v.npy", values)
    ids, found = read_vectors(tmp_path / "v.npy")
    assert ids.tolist() == [0, 1, 2]
    assert np.array_equal(found, values)


def test_fortran_ordered_npy_is_read_by_rows(tmp_path, vectors):
    np.save(tmp_path / "v.npy", np.asfortranarray(vectors))
    assert np.array_equal(read_vectors(tmp_path / "v.npy")[1], vectors)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), DIM), pa.list_(pa.float32(), DIM)],
)
def test_parquet_gives_vectors_and_ids_whatever_the_list_type(tmp_path, vectors, kind):
    column = pa.array([row.astype(kind.value_type.to_pandas_dtype()) for row in vectors], type=kind)
    parquet(tmp_path / "v.parquet", [], embedding=column)
    ids, found = read_vectors(tmp_path / "v.parquet")
    assert ids.tolist() == [10, 20, 30]
    assert np.allclose(found, vectors, atol=1e-2 if kind.value_type == pa.float16() else 1e-6)


def test_parquet_without_ids_gives_row_numbers(tmp_path, vectors):
    ids, _ = read_vectors(parquet(tmp_path / "v.parquet", vectors, id=None))
    assert ids.tolist() == [0, 1, 2]


def test_parquet_ids_may_be_strings(tmp_path, vectors):
    ids, _ = read_vectors(parquet(tmp_path / "v.parquet", vectors, id=["a", "b", "c"]))
    assert list(ids) == ["a", "b", "c"]


def test_parquet_of_several_row_groups_keeps_its_order(tmp_path, vectors):
    pq.write_table(pa.table({"id": [1, 2, 3], "embedding": list(vectors)}), tmp_path / "v.parquet", row_group_size=1)
    ids, found = read_vectors(tmp_path / "v.parquet")
    assert ids.tolist() == [1, 2, 3]
    assert np.array_equal(found, vectors)


def test_column_may_have_another_name(tmp_path, vectors):
    parquet(tmp_path / "v.parquet", vectors, name="vec")
    assert np.array_equal(read_vectors(tmp_path / "v.parquet", column="vec")[1], vectors)


class Bomb:
    """Leaves a trace if it is ever unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


def test_object_array_is_refused_and_never_unpickled(tmp_path):
    trace = tmp_path / "trace"
    np.save(tmp_path / "v.npy", np.array([[Bomb(trace)]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a plain .npy array"):
        read_vectors(tmp_path / "v.npy")
    assert not trace.exists()


def test_bare_pickle_named_npy_is_refused_and_never_unpickled(tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "v.npy").write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ValueError, match=r"not a plain .npy array"):
        read_vectors(tmp_path / "v.npy")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("absent.npy", "no such file"),
        ("folder.npy", "no such file"),
        ("v.csv", r"expected a .npy or .parquet file, got .csv"),
        ("v", r"expected a .npy or .parquet file, got no suffix"),
    ],
)
def test_wrong_file_is_refused_and_named(tmp_path, name, sentence):
    (tmp_path / "folder.npy").mkdir()
    for file in ("v.csv", "v"):
        (tmp_path / file).write_text("1,2")
    with pytest.raises(ValueError, match=sentence) as caught:
        read_vectors(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_broken_file_is_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a ") as caught:
        read_vectors(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "values",
    [
        np.ones(DIM),
        np.ones((2, 2, DIM)),
        np.array([["a", "b"]]),
        np.ones((2, DIM), dtype=complex),
        np.ones((2, DIM), dtype=bool),
        np.array([["2024-01-01"]], dtype="M8[D]"),
    ],
    ids=["one dimension", "three dimensions", "strings", "complex", "bool", "dates"],
)
def test_npy_of_another_shape_or_type_is_refused_with_what_it_holds(tmp_path, values):
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(ValueError, match=r"expected \[N, D\] numbers, got"):
        read_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1.0, 2.0], None, [3.0, 4.0]], "row 1 of 'embedding' is null"),
        ([[1.0, 2.0], [1.0], [3.0, 4.0]], r"different lengths \(\[1, 2\]\)"),
        ([["a", "b"], ["c", "d"], ["e", "f"]], "holds string, expected numbers"),
        (["a", "b", "c"], "is string, expected lists of numbers"),
        ([1.0, 2.0, 3.0], "is double, expected lists of numbers"),
        ([[[1.0]], [[2.0]], [[3.0]]], "expected numbers"),
    ],
    ids=["null row", "ragged", "strings in lists", "strings", "numbers", "lists of lists"],
)
def test_parquet_of_another_content_is_refused_with_what_it_holds(tmp_path, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_vectors(parquet(tmp_path / "v.parquet", rows))


def test_absent_column_is_refused_with_those_that_exist(tmp_path, vectors):
    with pytest.raises(ValueError, match="no column 'embedding'; it has id, vec"):
        read_vectors(parquet(tmp_path / "v.parquet", vectors, name="vec"))


def test_null_inside_a_vector_is_found_by_the_check(tmp_path):
    _, found = read_vectors(parquet(tmp_path / "v.parquet", [[1.0, 2.0], [3.0, None], [5.0, 6.0]]))
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        check_embeddings(found, 2)


def test_file_without_rows_is_refused_by_the_check(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((0, DIM)))
    empty = pa.table({"embedding": pa.array([], pa.list_(pa.float32()))})
    pq.write_table(empty, tmp_path / "v.parquet")
    for name in ("v.npy", "v.parquet"):
        ids, found = read_vectors(tmp_path / name)
        assert len(ids) == 0
        with pytest.raises(ValueError, match="no vector was given; send at least one"):
            check_embeddings(found, DIM)


# --- checking


def test_good_vectors_pass_unchanged_as_float32(vectors):
    for values in (vectors, vectors.astype(np.float64), vectors.tolist()):
        checked = check_embeddings(values, DIM)
        assert checked.dtype == np.float32
        assert np.array_equal(checked, vectors)


def test_one_vector_becomes_a_matrix_of_one_row(vectors):
    assert check_embeddings(vectors[0], DIM).shape == (1, DIM)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_first_row_with_a_number_that_is_not_finite_is_named(vectors, bad):
    values = vectors.astype(np.float64)
    values[1, 2] = values[2, 0] = bad
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="queries: row 1 holds NaN or infinity"):
        check_embeddings(values, DIM, what="queries")


def test_first_zero_row_is_named(vectors):
    vectors[2] = 0
    with pytest.raises(ValueError, match="row 2 is a zero vector"):
        check_embeddings(vectors, DIM)


def test_wrong_width_is_refused_with_both_widths(vectors):
    with pytest.raises(ValueError, match="have 4 dimensions, this inverter takes 5"):
        check_embeddings(vectors, 5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.ones((1, 1, DIM)), r"expected a matrix \[N, 4\], got shape \(1, 1, 4\)"),
        ([[1.0, 2.0], [1.0]], "send numbers, 4 of them"),
        ([["a", "b", "c", "d"]], "send numbers"),
        ([None], "."),
        ([], "."),
        ({"a": 1}, "send numbers"),
        ([["1", "2", "3", "4"]], "send numbers"),
        (np.ones((1, DIM)) + 1j, "send numbers"),
    ],
    ids=["three dimensions", "ragged", "words", "null", "empty", "mapping", "digits in strings", "complex"],
)
def test_anything_else_is_refused_with_what_to_send(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_embeddings(values, DIM)
