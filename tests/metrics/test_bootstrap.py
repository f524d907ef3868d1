import numpy as np
import pytest

from embinv.metrics import bootstrap
from embinv.metrics.bootstrap import paired_bootstrap


def means(values):
    return values, np.ones(len(values))


def test_difference_of_means_has_the_normal_interval():
    rng = np.random.default_rng(0)
    first = rng.normal(size=2000)
    second = first + rng.normal(0.02, 0.5, size=2000)
    found = paired_bootstrap(means(first), means(second))
    error = (second - first).std(ddof=1) / 2000**0.5
    assert found.value == pytest.approx((second - first).mean())
    assert (found.first, found.second) == (pytest.approx(first.mean()), pytest.approx(second.mean()))
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.1 * error)
    assert found.n == 2000


def test_pairing_sees_what_two_standard_errors_hide():
    """Texts differ much from each other and both systems little: unpaired, this difference is a tenth of its error."""
    rng = np.random.default_rng(1)
    first = rng.normal(0, 10, size=400)
    assert paired_bootstrap(means(first), means(first + 0.1 + rng.normal(0, 0.1, size=400))).p < 0.01


def test_a_ratio_is_that_of_the_sums_and_not_the_mean_of_ratios():
    found = paired_bootstrap(([1, 9], [10, 10]), ([1, 1], [1, 100]))
    assert (found.first, found.second) == (pytest.approx(0.5), pytest.approx(2 / 101))


def test_systems_that_are_equal_do_not_differ():
    found = paired_bootstrap(means([1, 2, 3]), means([1, 2, 3]))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_chance_alone_is_called_significant_as_often_as_it_says():
    rng = np.random.default_rng(2)
    p = [
        paired_bootstrap(means(rng.normal(size=60)), means(rng.normal(size=60)), resamples=400, seed=i).p
        for i in range(400)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_blocks_of_resamples_are_as_good_as_one(monkeypatch):
    rng = np.random.default_rng(3)
    pair = means(rng.normal(size=50)), means(rng.normal(size=50))
    whole = paired_bootstrap(*pair, resamples=1000)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 50 * 7)
    parted = paired_bootstrap(*pair, resamples=1000)
    assert (parted.value, parted.n) == (whole.value, whole.n)
    assert parted.low == pytest.approx(whole.low, abs=0.05)


@pytest.mark.parametrize("count", [0, 1])
def test_one_text_is_no_comparison(count):
    with pytest.raises(ValueError, match="at least 2 texts"):
        paired_bootstrap(means([1.0] * count), means([1.0] * count))
