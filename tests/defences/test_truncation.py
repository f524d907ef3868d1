import numpy as np
import pytest

from embinv.defences.truncation import PCA, Matryoshka
from tests.fakes import unit_vectors

VECTORS = unit_vectors(40, 12)


def test_matryoshka_keeps_the_first_dimensions_at_unit_length():
    fitted = Matryoshka(5).fit(VECTORS, 0)
    expected = VECTORS[:, :5] / np.linalg.norm(VECTORS[:, :5], axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.protect(VECTORS, 0), expected, rtol=1e-6)
    np.testing.assert_allclose(fitted.query(VECTORS), expected, rtol=1e-6)


def test_a_vector_with_nothing_in_its_first_dimensions_stays_without_direction():
    vectors = np.eye(4, dtype=np.float32)
    assert not Matryoshka(2).fit(vectors, 0).protect(vectors, 0)[2:].any()


def flat_cloud():
    """[200, 12] float64 vectors with a mean, which vary in three directions only, and these [12, 3]."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(12, 3)))[0]
    return rng.normal(size=(200, 3)) * [5.0, 2.0, 1.0] @ directions.T + directions.sum(axis=1), directions


def test_principal_directions_are_those_of_greatest_variance_in_order():
    vectors, directions = flat_cloud()
    found = PCA(3).fit(vectors, 0).directions
    assert np.abs((found * directions).sum(axis=0)).min() > 0.95
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)
    stored = PCA(3).fit(vectors, 0).protect(vectors, 0)
    spread = np.var(stored, axis=0)
    assert spread[0] > spread[1] > spread[2]


def test_inner_products_stay_where_the_vectors_lie_in_the_kept_directions():
    vectors, _ = flat_cloud()
    fitted = PCA(3).fit(vectors, 0)
    kept = fitted.query(vectors) @ fitted.protect(vectors, 0).T
    np.testing.assert_allclose(kept, vectors @ vectors.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("defence", [Matryoshka(5), PCA(5)], ids=lambda each: each.name)
def test_what_is_seen_has_zeros_where_dimensions_are_gone(defence):
    fitted = defence.fit(VECTORS, 0)
    stored = fitted.protect(VECTORS, 0)
    seen = fitted.as_seen(stored)
    np.testing.assert_array_equal(seen[:, :5], stored)
    assert seen.shape == (40, 12) and not seen[:, 5:].any()
    assert defence.bytes_per_vector(12) == 20
    assert defence.setting == "5 dimensions"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Matryoshka(0), "keep at least 1"),
        (lambda: PCA(-1), "keep at least 1"),
        (lambda: Matryoshka(12).fit(VECTORS, 0), "keep fewer than 12"),
        (lambda: PCA(12).fit(VECTORS, 0), "keep fewer than 12"),
        (lambda: PCA(11).fit(VECTORS[:10], 0), "10 vectors span fewer"),
    ],
)
def test_what_leaves_nothing_out_or_nothing_over_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
