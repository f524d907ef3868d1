import numpy as np
import pytest
import sacrebleu

from embinv.metrics.text import cosine, sentence_bleu

ORIGINALS = ["Anna paid two coins, then left.", "the cat sat on the mat", "one two three four five", "a b"]
RECOVERED = ["Anna paid three coins, then left.", "the cat sat on the mat", "six seven", ""]


def test_bleu_is_the_mean_of_sacrebleus_sentence_scores():
    scores = [
        sacrebleu.sentence_bleu(y, [x], smooth_method="exp", tokenize="13a", use_effective_order=True).score
        for x, y in zip(ORIGINALS, RECOVERED, strict=True)
    ]
    figure = sentence_bleu(ORIGINALS, RECOVERED)
    assert figure.value == pytest.approx(np.mean(scores))
    assert figure.standard_error == pytest.approx(np.std(scores, ddof=1) / 2)
    assert figure.n == 4


def test_bleu_of_the_originals_is_a_hundred_though_they_are_short():
    assert sentence_bleu(ORIGINALS, ORIGINALS).value == pytest.approx(100.0)


def test_bleu_takes_the_original_as_the_reference():
    assert sentence_bleu(["a b c d", "x"], ["a b", "x"]).value != sentence_bleu(["a b", "x"], ["a b c d", "x"]).value


def test_cosine_equals_the_mean_of_each_rows_by_hand():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(5, 7)), 3 * rng.normal(size=(5, 7))
    each = [np.dot(a, b) / (np.dot(a, a) * np.dot(b, b)) ** 0.5 for a, b in zip(left, right, strict=True)]
    figure = cosine(left, right)
    assert figure.value == pytest.approx(np.mean(each))
    assert figure.standard_error == pytest.approx(np.std(each, ddof=1) / 5**0.5)


def test_cosine_is_one_for_the_same_direction_and_minus_one_for_the_opposite():
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    assert cosine(vectors, 7 * vectors).value == pytest.approx(1.0)
    assert cosine(vectors, -vectors).value == pytest.approx(-1.0)


def test_zero_vector_has_no_cosine_and_its_row_is_named():
    left = np.ones((3, 2))
    right = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 2.0]])
    for pair in ((left, right), (right, left)):
        with pytest.raises(ValueError, match="row 1 is a zero vector"):
            cosine(*pair)


def test_texts_of_different_counts_are_refused():
    with pytest.raises(ValueError, match="zip"):
        sentence_bleu(ORIGINALS, RECOVERED[:3])
