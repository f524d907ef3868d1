"""embinv/audit/ratio_sums.py: the figure of `ratio_figure`, from sums that do not grow."""

import random

import pytest

from embinv.audit.ratio_sums import RatioSums
from embinv.metrics.figures import ratio_figure


def sums_of(pairs):
    sums = RatioSums()
    for pair in pairs:
        sums.add(*pair)
    return sums


@pytest.mark.parametrize("seed", range(5))
def test_the_figure_is_that_of_all_texts_whatever_their_order(seed):
    rng = random.Random(seed)
    pairs = [(rng.randint(0, whole), whole) for whole in (rng.randint(1, 30) for _ in range(2 + 40 * seed))]
    found, expected = sums_of(pairs).figure(), ratio_figure(*zip(*pairs, strict=True))
    assert (found.value, found.n) == (pytest.approx(expected.value, abs=1e-15), expected.n)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-12, abs=1e-15)
    assert sums_of(pairs[::-1]).figure() == found


def test_a_share_that_is_the_same_in_each_of_many_texts_has_no_error_at_all():
    assert sums_of([(1, 3), (2, 6), (7, 21)] * 1000).figure().standard_error == 0


def test_what_is_kept_does_not_grow_with_the_texts():
    few, many = sums_of([(1, 2)] * 2), sums_of([(1, 2)] * 10_000)
    assert len(vars(few)) == len(vars(many)) and all(isinstance(value, int) for value in vars(many).values())


def test_one_text_has_no_error():
    with pytest.raises(ValueError, match="at least 2 texts, got 1"):
        sums_of([(1, 2)]).figure()
