import sys

import numpy as np
import pytest

from embinv.defences.quantisation import Binary, Int8, Product
from tests.fakes import unit_vectors

VECTORS = unit_vectors(600, 16)


def test_int8_is_off_by_half_a_step_of_its_dimensions_range_at_most():
    decoded = Int8().fit(VECTORS, 0).protect(VECTORS, 0)
    steps = (VECTORS.max(axis=0) - VECTORS.min(axis=0)) / 255
    assert (np.abs(decoded - VECTORS) <= 0.51 * steps).all()
    assert max(len(np.unique(column)) for column in decoded.T) <= 256


def test_signs_decode_to_the_magnitude_of_least_squares():
    stored = Binary().fit(VECTORS, 0).protect(VECTORS, 0)
    np.testing.assert_array_equal(np.sign(stored), np.where(VECTORS >= 0, 1, -1))
    error = np.square(stored - VECTORS).sum(axis=0)
    for factor in (0.99, 1.01):
        assert (np.square(factor * stored - VECTORS).sum(axis=0) > error).all()


def test_a_zero_is_stored_as_positive():
    vectors = np.array([[0.0, -0.0, -1.0], [2.0, 2.0, 2.0]], dtype=np.float32)
    assert (Binary().fit(vectors, 0).protect(vectors, 0)[0] > 0).tolist() == [True, True, False]


def test_every_part_of_a_product_code_is_one_of_2_to_the_bits_centroids_and_the_nearest():
    fitted = Product(4, 3).fit(VECTORS, 0)
    decoded = fitted.protect(VECTORS, 0)
    for start in range(0, 16, 4):
        centroids = np.unique(decoded[:, start : start + 4], axis=0)
        assert len(centroids) == 8
        distances = np.square(VECTORS[:, None, start : start + 4] - centroids[None]).sum(axis=2)  # [N, 8]
        np.testing.assert_array_equal(centroids[distances.argmin(axis=1)], decoded[:, start : start + 4])


def test_more_codes_lose_less():
    losses = [np.square(Product(parts, 4).fit(VECTORS, 0).protect(VECTORS, 0) - VECTORS).sum() for parts in (2, 4, 16)]
    assert losses == sorted(losses, reverse=True)


def test_product_codes_are_the_seeds():
    one, other = (Product(4, 3).fit(VECTORS, 7).protect(VECTORS, 0) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("defence", [Int8(), Binary(), Product(4, 3)], ids=lambda each: each.name)
def test_queries_stay_exact_and_the_decoded_content_is_what_is_seen(defence):
    fitted = defence.fit(VECTORS, 0)
    np.testing.assert_array_equal(fitted.query(VECTORS), VECTORS)
    stored = fitted.protect(VECTORS[:9], 0)
    assert fitted.as_seen(stored) is stored
    assert (stored.shape, stored.dtype) == ((9, 16), np.float32)


@pytest.mark.parametrize(
    ("defence", "size"),
    [(Int8(), 384), (Binary(), 48), (Product(96), 96), (Product(24, 4), 12), (Product(3, 3), 2)],
)
def test_bytes_are_those_of_the_codes(defence, size):
    assert defence.bytes_per_vector(384) == size


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Product(5).fit(VECTORS, 0), "product quantisation 5x8: 16 dimensions do not part into 5"),
        (lambda: Product(4).fit(VECTORS[:255], 0), "256 centroids need as many vectors, got 255"),
        (lambda: Product(0), "at least 1 part"),
        (lambda: Product(4, 17), "1 to 16 bits"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_fix(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("defence", [Int8(), Product(4, 3)], ids=lambda each: each.name)
def test_without_faiss_the_extra_is_named(monkeypatch, defence):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"needs FAISS; pip install 'embinv\[audit\]'"):
        defence.fit(VECTORS, 0)
