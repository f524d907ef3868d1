import numpy as np
import pytest

from embinv.metrics.lengths import length_bias, length_error

ORIGINALS = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 9]]
RECOVERED = [[1], [4, 4, 4], [0, 0], []]
DIFFERENCES = np.array([-2, 2, 0, -4])


def test_error_is_the_mean_absolute_and_bias_the_mean_signed_difference_of_lengths():
    for figure, values in (
        (length_error(ORIGINALS, RECOVERED), abs(DIFFERENCES)),
        (length_bias(ORIGINALS, RECOVERED), DIFFERENCES),
    ):
        assert figure.value == pytest.approx(values.mean())
        assert figure.standard_error == pytest.approx(values.std(ddof=1) / 2)
        assert figure.n == 4


def test_exchanging_the_texts_turns_the_bias_and_keeps_the_error():
    assert length_bias(RECOVERED, ORIGINALS).value == -length_bias(ORIGINALS, RECOVERED).value
    assert length_error(RECOVERED, ORIGINALS) == length_error(ORIGINALS, RECOVERED)


def test_texts_that_are_too_long_have_a_positive_bias():
    assert length_bias([[1], [1]], [[1, 2], [1, 2, 3]]).value == 1.5


def test_differences_that_cancel_have_no_bias_but_an_error():
    assert length_bias([[1, 2], [1]], [[1], [1, 2]]).value == 0.0
    assert length_error([[1, 2], [1]], [[1], [1, 2]]).value == 1.0


def test_only_how_many_tokens_there_are_matters():
    assert length_error(ORIGINALS, [[0] * len(x) for x in ORIGINALS]).value == 0.0


@pytest.mark.parametrize("metric", [length_error, length_bias])
def test_what_cannot_be_measured_raises_and_is_never_zero(metric):
    with pytest.raises(ValueError, match="at least 2"):
        metric([[1]], [[1]])
    with pytest.raises(ValueError, match="zip"):
        metric([[1], [2]], [[1]])
