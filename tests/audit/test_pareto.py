import numpy as np
import pytest

from embinv.audit.pareto import on_front


@pytest.mark.parametrize(
    ("leakage", "utility", "front"),
    [
        ([0.9, 0.5, 0.5, 0.1], [1.0, 0.9, 0.8, 0.2], [True, True, False, True]),
        ([0.5, 0.5], [0.7, 0.7], [True, True]),
        ([0.5, 0.4], [0.7, 0.7], [False, True]),
        ([0.5], [0.0], [True]),
        ([], [], []),
    ],
    ids=["mixed", "equal", "same utility", "alone", "none"],
)
def test_the_front_is_what_no_other_row_beats(leakage, utility, front):
    assert on_front(leakage, utility) == front


def test_each_row_off_the_front_is_beaten_by_one_on_it():
    points = np.random.default_rng(0).integers(0, 6, size=(60, 2))
    front = on_front(points[:, 0].tolist(), points[:, 1].tolist())
    kept = points[front]
    for (leakage, utility), on in zip(points.tolist(), front, strict=True):
        as_good = (kept[:, 0] <= leakage) & (kept[:, 1] >= utility)
        better = as_good & ((kept[:, 0] < leakage) | (kept[:, 1] > utility))
        assert better.any() != on


def test_different_lengths_are_refused():
    with pytest.raises(ValueError, match="zip"):
        on_front([0.1], [])
