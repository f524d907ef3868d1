"""embinv/audit/leakage.py: expected and found numbers, against sums by hand."""

from math import sqrt

import numpy as np
import pytest

from embinv.audit.leakage import THRESHOLDS, agreement, by_comparison, by_probability, by_words, compare, given_away

NAN = np.nan


def letters(texts):
    return [[ord(letter) for letter in text] for text in texts]


def test_the_expected_number_is_the_sum_of_probabilities_with_the_error_of_independent_events():
    found = by_probability(np.array([0.5, 0.9, NAN, 0.1, 1.0]))
    assert found["n"] == 4 and found["expected"] == pytest.approx(2.5)
    assert found["expected_se"] == pytest.approx(sqrt(0.25 + 0.09 + 0.09))
    assert found["share"] == pytest.approx(2.5 / 4) and found["share_se"] == pytest.approx(found["expected_se"] / 4)
    assert (found["likely"], found["nearly_sure"]) == (3, 2)


def test_the_curve_falls_from_threshold_to_threshold_and_counts_those_at_it():
    curve = by_probability(np.array([0.5, 0.05, 1.0, 0.99]))["curve"]
    assert [row["threshold"] for row in curve] == list(THRESHOLDS)
    shares = {row["threshold"]: row["share"] for row in curve}
    assert shares[0.05] == 1 and shares[0.5] == 0.75 and shares[0.99] == 0.5
    assert all(one >= other for one, other in zip(list(shares.values())[:-1], list(shares.values())[1:], strict=True))


def test_a_probability_that_was_stored_in_32_bits_still_reaches_its_threshold():
    stored = np.array([0.9, 0.7, 0.35, 0.05], np.float32).astype(np.float64)  # the first is 0.89999998
    found = by_probability(stored)
    assert found["nearly_sure"] == 1 and found["likely"] == 2
    shares = {round(row["threshold"], 2): row["share"] for row in found["curve"]}
    assert (shares[0.9], shares[0.7], shares[0.35], shares[0.05]) == (0.25, 0.5, 0.75, 1.0)


def test_nothing_is_expected_where_nothing_was_calibrated():
    assert by_probability(np.array([NAN, NAN])) is None
    assert agreement(np.array([NAN, 0.5]), np.array([1.0, NAN])) is None


def test_the_expected_number_is_right_on_average_and_its_error_is_its_spread():
    rng = np.random.default_rng(0)
    probabilities = rng.random(400)
    sums = [(rng.random(400) < probabilities).sum() for _ in range(4000)]
    found = by_probability(probabilities)
    assert np.mean(sums) == pytest.approx(found["expected"], abs=0.5)
    assert np.std(sums) == pytest.approx(found["expected_se"], rel=0.05)


def test_texts_are_compared_token_by_token_and_the_longer_one_counts():
    originals = ["abcdefghij", "abcdefghij", "abcdefghij", None, "", "abcdefghij"]
    recovered = ["abcdefghij", "abcdefghiX", "abcdefghijkl", "abc", "abc", ""]
    found = compare(originals, recovered, letters)
    np.testing.assert_array_equal(found.whole, [1, 0, 0, NAN, NAN, 0])
    np.testing.assert_array_equal(found.nearly, [1, 1, 0, NAN, NAN, 0])
    np.testing.assert_allclose(found.f1, [1, 0.9, 20 / 22, NAN, NAN, 0])
    figures = by_comparison(found)
    assert figures["n"] == 4 and figures["nearly_right_count"] == 2
    assert figures["nearly_right"] == 0.5 and figures["whole_text"] == 0.25
    assert figures["nearly_right_se"] == pytest.approx(sqrt(4 * 0.25 / 3 / 4))


def test_words_are_compared_whatever_their_case_where_no_tokenizer_is_at_hand():
    tokenize = by_words()
    assert tokenize(["Ann owes ben", "ben OWES ann"]) == [[0, 1, 2], [2, 1, 0]]
    found = compare(["Ann owes Ben."], ["ann owes ben ."], by_words())
    assert found.whole.tolist() == [1]


def test_fewer_than_two_compared_texts_have_no_figures():
    assert by_comparison(compare(["a", None], ["a", "b"], letters)) is None


def test_agreement_is_over_rows_that_have_both_and_fails_two_errors_away():
    probabilities = np.array([0.5] * 100 + [1.0, NAN])
    nearly = np.array([1.0] * 55 + [0.0] * 45 + [NAN, 1.0])
    found = agreement(probabilities, nearly)
    assert (found["n"], found["expected"], found["found"], found["agrees"]) == (100, 50, 55, True)
    assert found["deviation"] == pytest.approx(1.0)
    nearly[:70] = 1
    assert agreement(probabilities, nearly)["agrees"] is False


def test_certain_probabilities_leave_no_room_for_doubt():
    sure = np.array([1.0, 1.0, 0.0])
    assert agreement(sure, np.array([1.0, 1.0, 0.0]))["agrees"] is True
    wrong = agreement(sure, np.array([1.0, 0.0, 0.0]))
    assert wrong["agrees"] is False and wrong["deviation"] is None


def test_what_was_compared_counts_before_what_was_predicted():
    np.testing.assert_array_equal(
        given_away(np.array([0.3, 0.4, NAN]), np.array([1.0, NAN, NAN])), np.array([1.0, 0.4, NAN])
    )
