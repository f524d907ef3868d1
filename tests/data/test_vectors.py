import numpy as np
import pytest

from embinv.data.vectors import check_embeddings

DIM = 4


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(3, DIM)).astype(np.float32)


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
