import itertools

import numpy as np
import pytest

from embinv.metrics.calibration import (
    Bin,
    expected_calibration_error,
    fit_isotonic,
    reliability,
    rightness,
    share_right,
)


def test_isotonic_map_is_the_increasing_one_of_least_squares_by_brute_force():
    scores = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    outcomes = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    knots, probabilities = fit_isotonic(scores, outcomes)
    found = np.interp(scores, knots, probabilities)
    grid = np.linspace(0, 1, 11)
    best = min(
        (np.square(np.array(steps) - outcomes).sum(), steps)
        for steps in itertools.combinations_with_replacement(grid, 5)
    )
    assert found == pytest.approx(best[1])
    assert np.square(found - outcomes).sum() == pytest.approx(best[0])


def test_map_of_scores_that_are_probabilities_is_nearly_the_identity():
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    knots, probabilities = fit_isotonic(scores, (rng.random(20_000) < scores).astype(float))
    at = np.linspace(0.05, 0.95, 10)
    assert np.interp(at, knots, probabilities) == pytest.approx(at, abs=0.06)


@pytest.mark.parametrize("scores", [[], [0.1, np.nan]])
def test_scores_that_cannot_be_calibrated_are_refused(scores):
    with pytest.raises(ValueError, match="needs scores, all of them finite"):
        fit_isotonic(np.asarray(scores), np.zeros(len(scores)))


def test_bins_hold_every_thing_once_and_the_last_one_holds_certainty():
    found = reliability(np.array([0.0, 0.05, 0.1, 0.95, 1.0]), np.array([0, 1, 1, 1, 0]), bins=10)
    assert found == [Bin(2, 0.025, 0.5), Bin(1, 0.1, 1.0), Bin(2, 0.975, 0.5)]


def test_error_is_the_mean_distance_over_the_bins():
    probabilities, outcomes = np.array([0.0, 0.05, 0.1, 0.95, 1.0]), np.array([0, 1, 1, 1, 0])
    found = expected_calibration_error(probabilities, outcomes, np.array([0, 0, 1, 1, 2]))
    assert found.value == pytest.approx((2 * abs(0.025 - 0.5) + 0.9 + 2 * abs(0.975 - 0.5)) / 5)
    assert found.n == 3


def test_error_of_probabilities_that_are_true_is_small_and_of_others_what_they_are_off_by():
    rng = np.random.default_rng(1)
    probabilities = rng.random(40_000)
    outcomes = (rng.random(40_000) < probabilities).astype(float)
    texts = np.arange(40_000) // 10
    assert expected_calibration_error(probabilities, outcomes, texts).value < 0.01
    off = expected_calibration_error(np.full(40_000, 0.8), outcomes, texts)
    assert off.value == pytest.approx(0.8 - outcomes.mean())
    expected = np.add.reduceat(outcomes, np.arange(0, 40_000, 10)).std() / 10 / 4000**0.5
    assert off.standard_error == pytest.approx(expected, rel=0.2)


def test_error_of_one_text_is_refused():
    with pytest.raises(ValueError, match="at least 2 texts, got 1"):
        expected_calibration_error(np.ones(3), np.ones(3), np.zeros(3, dtype=int))


def test_tokens_are_right_where_they_stand_and_texts_by_the_longer_one():
    assert rightness([1, 2, 3], [1, 3, 3, 4]) == [True, False, True, False]
    assert share_right([1, 2, 3], [1, 3, 3, 4]) == 0.5
    assert share_right([1, 2, 3, 4], [1, 2]) == 0.5
    assert share_right([1, 2], [1, 2]) == 1.0
    assert share_right([1], []) == 0.0
