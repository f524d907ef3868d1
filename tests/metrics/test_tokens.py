from math import sqrt

import numpy as np
import pytest

from embinv.metrics.tokens import exact_match, token_accuracy, token_f1


def random_texts(count, seed, longest=9):
    rng = np.random.default_rng(seed)
    originals = [rng.integers(0, 4, size=rng.integers(1, longest)).tolist() for _ in range(count)]
    recovered = [rng.integers(0, 4, size=rng.integers(0, longest)).tolist() for _ in range(count)]
    return originals, recovered


def test_token_accuracy_equals_counting_every_place():
    originals, recovered = random_texts(50, 0)
    right = sum(
        1 for x, y in zip(originals, recovered, strict=True) for i in range(len(x)) if i < len(y) and x[i] == y[i]
    )
    figure = token_accuracy(originals, recovered)
    assert figure.value == pytest.approx(right / sum(map(len, originals)))
    assert figure.n == 50


def test_token_accuracy_of_the_original_is_one_with_no_error():
    originals, _ = random_texts(20, 1)
    figure = token_accuracy(originals, originals)
    assert (figure.value, figure.standard_error) == (1.0, 0.0)


def test_tokens_beyond_the_original_neither_help_nor_harm_and_missing_ones_are_wrong():
    assert token_accuracy([[1, 2], [3]], [[1, 2, 9, 9], []]).value == pytest.approx(2 / 3)


def test_standard_error_is_that_of_a_mean_where_all_texts_have_one_length():
    originals, recovered = random_texts(40, 2)
    originals = [(x * 8)[:8] for x in originals]
    recovered = [(y + [5] * 8)[:8] for y in recovered]
    shares = [np.mean([a == b for a, b in zip(x, y, strict=True)]) for x, y in zip(originals, recovered, strict=True)]
    figure = token_accuracy(originals, recovered)
    assert figure.standard_error == pytest.approx(np.std(shares, ddof=1) / sqrt(40))


def test_standard_error_agrees_with_a_bootstrap_over_texts():
    originals, recovered = random_texts(400, 3)
    right = np.array(
        [sum(a == b for a, b in zip(x, y, strict=False)) for x, y in zip(originals, recovered, strict=True)]
    )
    lengths = np.array([len(x) for x in originals])
    draws = np.random.default_rng(0).integers(0, 400, size=(4000, 400))
    bootstrap = (right[draws].sum(axis=1) / lengths[draws].sum(axis=1)).std()
    assert token_accuracy(originals, recovered).standard_error == pytest.approx(bootstrap, rel=0.08)


def test_exact_match_counts_length_and_every_token():
    assert exact_match([[1, 2], [1, 2], [1, 2], [1]], [[1, 2], [1, 2, 3], [1], (1,)]).value == 0.5


def test_f1_equals_twice_precision_times_recall_over_their_sum():
    original, recovered = [1, 1, 2, 3], [1, 2, 2, 9, 9]
    shared = 2  # one 1 and one 2
    precision, recall = shared / 5, shared / 4
    figure = token_f1([original, [7]], [recovered, [7]])
    assert figure.value == pytest.approx((2 * precision * recall / (precision + recall) + 1.0) / 2)


def test_f1_does_not_look_at_order_and_is_zero_without_a_shared_token():
    assert token_f1([[1, 2, 3], [4]], [[3, 1, 2], [5]]).value == 0.5
    assert token_f1([[1], [4]], [[], [5]]).value == 0.0


@pytest.mark.parametrize("metric", [token_accuracy, exact_match, token_f1])
def test_what_cannot_be_measured_raises_and_is_never_zero(metric):
    with pytest.raises(ValueError, match="at least 2"):
        metric([[1]], [[1]])
    with pytest.raises(ValueError, match="at least 2"):
        metric([], [])
    with pytest.raises(ValueError, match="zip"):
        metric([[1], [2]], [[1]])


def test_original_without_content_has_no_accuracy():
    with pytest.raises(ValueError, match="each with a content token"):
        token_accuracy([[1], []], [[1], []])
