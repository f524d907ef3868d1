import numpy as np
import pytest

from embinv.defences.noise import Noise, add_noise
from tests.fakes import unit_vectors


@pytest.mark.parametrize("scale", [0.05, 0.5])
@pytest.mark.parametrize("length", [0.01, 30.0])
def test_noise_is_as_long_as_its_share_of_each_vectors_norm(scale, length):
    vectors = length * unit_vectors(400, 64)
    noise = add_noise(vectors, scale, np.random.default_rng(0)) - vectors
    assert np.sqrt(np.square(noise).sum(axis=1).mean()) == pytest.approx(scale * length, rel=0.02)
    assert np.abs(noise.mean(axis=0)).max() < 5 * scale * length / np.sqrt(64 * 400)


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_cosine_to_the_noisy_vector_is_that_of_independent_directions(scale):
    vectors = unit_vectors(200, 512)
    stored = Noise(scale).fit(vectors, 0).protect(vectors, 1)
    assert (stored * vectors).sum(axis=1).mean() == pytest.approx(1 / np.sqrt(1 + scale**2), abs=0.005)


def test_unit_vectors_stay_of_unit_length_and_others_are_not_brought_to_it():
    vectors = unit_vectors(50, 32)
    unit, free = (Noise(0.5).fit(each, 0).protect(each, 1) for each in (vectors, 3 * vectors))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    assert np.linalg.norm(free, axis=1).std() > 0.1
    float16 = vectors.astype(np.float16)
    np.testing.assert_allclose(np.linalg.norm(Noise(0.5).fit(float16, 0).protect(float16, 1), axis=1), 1, rtol=1e-5)


def test_noise_is_the_seeds_and_queries_get_none():
    vectors = unit_vectors(8, 16)
    fitted = Noise(0.2).fit(vectors, 0)
    np.testing.assert_array_equal(fitted.protect(vectors, 3), fitted.protect(vectors, 3))
    assert np.abs(fitted.protect(vectors, 3) - fitted.protect(vectors, 4)).min(axis=1).max() > 0
    np.testing.assert_array_equal(fitted.query(vectors), vectors)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_no_noise_at_all_is_refused(scale):
    with pytest.raises(ValueError, match="give a share of the norm above 0"):
        Noise(scale)
