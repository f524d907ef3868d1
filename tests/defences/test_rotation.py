import numpy as np

from embinv.defences.rotation import Rotation, haar
from tests.fakes import unit_vectors


def test_cosines_stay_and_vectors_do_not():
    vectors = unit_vectors(30, 24)
    fitted = Rotation().fit(vectors, 5)
    stored = fitted.protect(vectors, 0)
    np.testing.assert_allclose(fitted.query(vectors) @ stored.T, vectors @ vectors.T, atol=1e-6)
    assert np.abs((stored * vectors).sum(axis=1)).mean() < 0.5
    assert fitted.as_seen(stored) is stored


def test_the_secret_is_the_seed():
    vectors = unit_vectors(4, 24)
    one, same, other = (Rotation().fit(vectors, seed).protect(vectors, 0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_matrices_are_orthogonal():
    matrix = haar(50, np.random.default_rng(0))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(50), atol=1e-12)


def test_draws_are_haars():
    # E tr(Q^2) = 1 and P(det = 1) = 1/2; QR without the signs has diagonals of one sign (LAPACK), so E tr Q is not 0.
    rng = np.random.default_rng(0)
    drawn = [haar(3, rng) for _ in range(4000)]
    traces = np.array([np.trace(q) for q in drawn])
    assert abs(traces.mean()) < 4 / np.sqrt(4000)
    assert abs(np.square(traces).mean() - 1) < 0.1
    assert abs(np.mean([np.linalg.det(q) > 0 for q in drawn]) - 0.5) < 0.03
