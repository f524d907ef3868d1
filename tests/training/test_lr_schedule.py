import math
from itertools import pairwise

import pytest

from embinv.training.lr_schedule import SCHEDULES

WARMUP, DECAY = 0.1, 0.4
GRID = [i / 1000 for i in range(1001)]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_rate_rises_from_zero_to_one_and_ends_at_zero(name):
    rates = [SCHEDULES[name](progress, WARMUP, DECAY) for progress in GRID]
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(1.0)  # the end of the warm-up
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(0.0 <= rate <= 1.0 for rate in rates)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_rate_only_rises_during_warmup_and_never_rises_after_it(name):
    rates = [SCHEDULES[name](progress, WARMUP, DECAY) for progress in GRID]
    assert all(a < b for a, b in pairwise(rates[:101]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[100:]))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_warmup_is_linear(name):
    assert SCHEDULES[name](0.025, WARMUP, DECAY) == pytest.approx(0.25)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_without_warmup_the_run_starts_at_the_full_rate(name):
    assert SCHEDULES[name](0.0, 0.0, DECAY) == 1.0


def test_trapezoid_is_flat_between_warmup_and_decay_and_linear_after():
    rate = SCHEDULES["trapezoid"]
    assert {rate(progress, WARMUP, DECAY) for progress in (0.1, 0.3, 0.6)} == {1.0}
    assert rate(0.8, WARMUP, DECAY) == pytest.approx(0.5)
    assert rate(0.9, WARMUP, DECAY) == pytest.approx(0.25)


def test_trapezoid_without_decay_stays_at_the_full_rate():
    assert SCHEDULES["trapezoid"](0.999, WARMUP, 0.0) == 1.0


def test_cosine_follows_half_a_cosine_after_warmup():
    for progress in (0.1, 0.4, 0.55, 0.9):
        expected = 0.5 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))
        assert SCHEDULES["cosine"](progress, WARMUP, DECAY) == pytest.approx(expected)
