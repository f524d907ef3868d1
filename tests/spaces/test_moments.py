import tracemalloc

import numpy as np
import pytest

from embinv.spaces import moments as module
from embinv.spaces.moments import Moments, Shape, moments_of
from tests.fakes import unit_vectors


def correlated(rows, dim=12, seed=0):
    """Vectors whose coordinates depend on each other, far from 0, one of which stands still."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dim)) @ rng.normal(size=(dim, dim)) + 3.0
    vectors[:, 4] = 0.25
    return vectors.astype(np.float32)


def test_statistics_equal_numpys():
    vectors = unit_vectors(30, 16) * np.linspace(0.5, 2, 30)[:, None]
    found = moments_of(vectors.astype(np.float16)).statistics()
    stored = vectors.astype(np.float16).astype(np.float64)
    norms = np.linalg.norm(stored, axis=1)
    assert found.rows == 30
    assert (found.norm_mean, found.norm_std) == pytest.approx((norms.mean(), norms.std()), abs=2e-6)
    assert found.mean == pytest.approx(stored.mean(axis=0).tolist(), abs=2e-6)
    assert found.std == pytest.approx(stored.std(axis=0).tolist(), abs=2e-6)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 30])
def test_statistics_of_blocks_equal_those_of_the_whole(rows):
    vectors = (5 + unit_vectors(rows, 16) * np.linspace(0.5, 2, rows)[:, None]).astype(np.float16)
    found, stored = moments_of(vectors, rows_at_once=8).statistics(), vectors.astype(np.float64)
    assert found.rows == rows
    norms = np.linalg.norm(stored, axis=1)
    assert (found.norm_mean, found.norm_std) == pytest.approx((norms.mean(), norms.std()), rel=1e-6, abs=2e-6)
    assert found.mean == pytest.approx(stored.mean(axis=0).tolist(), abs=1e-6)
    assert found.std == pytest.approx(stored.std(axis=0).tolist(), abs=1e-6)


def test_statistics_take_no_copy_of_the_matrix():
    vectors = unit_vectors(40_000, 32).astype(np.float16)
    tracemalloc.start()
    try:
        moments_of(vectors, rows_at_once=256).statistics()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 10_000 < peak < vectors.nbytes / 4


def test_spectrum_and_correlations_equal_numpys():
    vectors = correlated(500)
    shape = moments_of(vectors, rows_at_once=64).shape()
    covariance = np.cov(vectors.astype(np.float64).T, bias=True)
    values = np.linalg.eigvalsh(covariance)[::-1]
    assert shape.spectrum == pytest.approx(values / values.sum(), abs=1e-5)
    moving = [each for each in range(12) if each != 4]
    expected = np.corrcoef(vectors[:, moving].astype(np.float64).T)
    assert shape.correlation[np.ix_(moving, moving)] == pytest.approx(expected, abs=1e-5)
    assert np.isnan(shape.correlation[4]).all()
    assert np.isnan(shape.correlation[:, 4]).all()


def test_a_sample_stands_for_a_long_stream(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 2_000)
    monkeypatch.setattr(module, "TOGETHER", 300)
    vectors = correlated(60_000)
    vectors[30_000:] += 2.0  # the second half is unlike the first
    found, shape = moments_of(vectors, 512), moments_of(vectors, 512).shape()
    wide = vectors.astype(np.float64)
    assert found.statistics().rows == 60_000
    assert found.statistics().norm_mean == pytest.approx(np.linalg.norm(wide, axis=1).mean(), abs=1e-5)
    # means are within the noise of some 12,000 rows, and none of the two halves counts for more than the other
    error = np.abs(np.array(found.statistics().mean) - wide.mean(axis=0)) / wide.std(axis=0).clip(1e-6)
    assert error.max() < 0.06
    moving = [each for each in range(12) if each != 4]
    assert shape.correlation[np.ix_(moving, moving)] == pytest.approx(np.corrcoef(wide[:, moving].T), abs=0.05)


def test_streams_beside_each_other_are_as_one_after_the_other():
    vectors = correlated(900)
    one = moments_of(vectors, 100)
    beside = moments_of(vectors[:250], 100)
    for start, end in ((250, 251), (251, 900)):
        beside.join(moments_of(vectors[start:end], 64))
    beside.join(Moments(12))
    assert beside.statistics().rows == 900
    assert beside.statistics().norm_std == pytest.approx(one.statistics().norm_std, abs=1e-5)
    assert beside.statistics().mean == pytest.approx(one.statistics().mean, abs=1e-5)
    assert beside.shape().spectrum == pytest.approx(one.shape().spectrum, abs=1e-5)


def test_many_dimensions_keep_some_coordinates():
    shape = moments_of(unit_vectors(50, 600)).shape()
    assert shape.correlation.shape == (256, 256)
    assert (shape.coordinates[0], shape.coordinates[-1]) == (0, 599)
    assert len(shape.spectrum) == 600


def test_shape_comes_back_from_its_file(tmp_path):
    shape = moments_of(correlated(50)).shape()
    shape.save(tmp_path / "s.safetensors")
    again = Shape.load(tmp_path / "s.safetensors")
    assert again is not None
    assert np.array_equal(again.correlation, shape.correlation, equal_nan=True)
    assert np.array_equal(again.spectrum, shape.spectrum)
    assert Shape.load(tmp_path / "absent") is None


def test_nothing_has_no_statistics():
    for ask in (Moments(3).statistics, Moments(3).shape, lambda: moments_of(np.zeros((0, 3)))):
        with pytest.raises(ValueError, match="at least one"):
            ask()
