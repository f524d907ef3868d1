from math import sqrt

import numpy as np
import pytest

from embinv.metrics.figures import mean_figure, ratio_figure


def test_mean_and_its_standard_error_equal_numpys():
    values = np.random.default_rng(0).normal(size=30)
    figure = mean_figure(values.tolist())
    assert figure.value == pytest.approx(values.mean())
    assert figure.standard_error == pytest.approx(values.std(ddof=1) / sqrt(30))


def test_ratio_of_equal_wholes_is_a_mean_with_its_standard_error():
    parts = np.random.default_rng(0).normal(size=30)
    figure = ratio_figure(parts.tolist(), [4.0] * 30)
    assert figure.value == pytest.approx(parts.mean() / 4)
    assert figure.standard_error == pytest.approx(parts.std(ddof=1) / 4 / sqrt(30))


@pytest.mark.parametrize("wholes", [[], [1.0], [1.0, 0.0]])
def test_ratio_over_nothing_raises(wholes):
    with pytest.raises(ValueError, match="at least 2 texts"):
        ratio_figure([1.0] * len(wholes), wholes)


def test_parts_and_wholes_of_the_texts_sum_up_to_the_figure():
    for figure in (mean_figure([1.0, 2.0, 4.0]), ratio_figure([1, 2, 3], [2, 3, 7])):
        assert sum(figure.parts) / sum(figure.wholes) == pytest.approx(figure.value)
        assert len(figure.parts) == len(figure.wholes) == figure.n == 3
