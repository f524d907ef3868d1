"""How many vectors go through the model together, where nobody has said it."""

import pytest

from embinv.decoding.options import Choices
from serve_app.inverting import ROUNDS, TRIED, ServedCheckpoint, Way, best_batch

SIZES = (8, 16, 32)


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({8: 9.0, 16: 8.0, 32: 7.0}, 8),
        ({8: 5.0, 16: 9.0, 32: 9.1}, 16),  # nearly as quick, and each waits half as long
        ({8: 5.0, 16: 8.0, 32: 10.0}, 32),
    ],
)
def test_the_smallest_batch_that_is_nearly_the_quickest_is_taken(rates, best):
    assert best_batch(lambda size: size / rates[size], SIZES) == best


def test_one_slow_moment_decides_nothing():
    calls = []

    def seconds(size):
        calls.append(size)
        return size / 10 * (50 if len(calls) == 1 else 1)

    assert best_batch(seconds, SIZES) == 8
    assert calls == [8, 16, 32, 32, 16, 8, 8, 16, 32] and len(calls) == ROUNDS * len(SIZES)


def test_a_served_checkpoint_tries_and_one_that_is_told_does_not(tiny_checkpoint, vectors):
    served = ServedCheckpoint(tiny_checkpoint, "cpu", 1, None)
    served.warm_up()
    assert served.inverter.batch_size in TRIED["cpu"]
    told = ServedCheckpoint(tiny_checkpoint, "cpu", 1, 5)
    told.warm_up()
    assert told.inverter.batch_size == told.rows_at_once(Way(Choices())) == 5
    texts = [[each.text for each in one.inverter.invert(vectors)] for one in (served, told)]
    assert texts[0] == texts[1]
