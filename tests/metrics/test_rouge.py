from collections import Counter

import numpy as np
import pytest

from embinv.metrics.rouge import rouge_1, rouge_l

ENGLISH = ["Anna paid two coins, then left.", "the cat sat on the mat", "one two three four five", "a b"]
RECOVERED = ["then Anna paid three coins.", "on the mat the cat sat", "six seven", ""]


def longest_common_subsequence(left, right):
    """Its length, by trying every subsequence of the left."""
    found = 0
    for chosen in range(2 ** len(left)):
        part = [word for i, word in enumerate(left) if chosen >> i & 1]
        rest = iter(right)
        if len(part) > found and all(word in rest for word in part):
            found = len(part)
    return found


def f_measure(shared, original, recovered):
    if shared == 0:
        return 0.0
    precision, recall = shared / len(recovered), shared / len(original)
    return 2 * precision * recall / (precision + recall)


def random_words(count, seed):
    rng = np.random.default_rng(seed)
    return [rng.choice(list("abcd"), size=rng.integers(1, 8)).tolist() for _ in range(count)]


def test_rouge_1_is_the_f_measure_of_shared_words():
    originals, recovered = random_words(30, 0), random_words(30, 1)
    shared = [(Counter(x) & Counter(y)).total() for x, y in zip(originals, recovered, strict=True)]
    scores = [f_measure(*each) for each in zip(shared, originals, recovered, strict=True)]
    figure = rouge_1([" ".join(x) for x in originals], [" ".join(y) for y in recovered])
    assert figure.value == pytest.approx(np.mean(scores))
    assert figure.standard_error == pytest.approx(np.std(scores, ddof=1) / 30**0.5)
    assert figure.n == 30


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence():
    originals, recovered = random_words(30, 2), random_words(30, 3)
    shared = [longest_common_subsequence(x, y) for x, y in zip(originals, recovered, strict=True)]
    scores = [f_measure(*each) for each in zip(shared, originals, recovered, strict=True)]
    figure = rouge_l([" ".join(x) for x in originals], [" ".join(y) for y in recovered])
    assert figure.value == pytest.approx(np.mean(scores))
    assert figure.standard_error == pytest.approx(np.std(scores, ddof=1) / 30**0.5)


@pytest.mark.parametrize(
    ("metric", "scores"),
    [(rouge_1, [8 / 11, 1.0, 0.0, 0.0]), (rouge_l, [6 / 11, 0.5, 0.0, 0.0])],  # of rouge-score 0.1.2
)
def test_plain_english_scores_as_the_usual_library_scores_it(metric, scores):
    assert metric(ENGLISH, RECOVERED).value == pytest.approx(np.mean(scores))


@pytest.mark.parametrize(
    ("original", "recovered", "shared", "in_order"),
    [
        ("我在北京工作", "他在北京生活", 3, 3),  # each of six characters
        ("東京へ行く", "行く東京へ", 5, 3),
        ("รถไฟ", "ไฟรถ", 4, 2),
        ("мама мыла раму", "раму мыла МАМА", 3, 1),
    ],
)
def test_languages_that_the_usual_library_drops_are_scored(original, recovered, shared, in_order):
    words = 3 if " " in original else len(original)
    twice = [original] * 2, [recovered] * 2
    assert rouge_1(*twice).value == pytest.approx(shared / words)  # precision and recall are equal
    assert rouge_l(*twice).value == pytest.approx(in_order / words)


@pytest.mark.parametrize("metric", [rouge_1, rouge_l])
def test_original_itself_scores_one_and_nothing_scores_zero(metric):
    texts = [*ENGLISH, "我在北京工作", "हिन्दी में"]
    assert (metric(texts, texts).value, metric(texts, texts).standard_error) == (1.0, 0.0)
    assert metric(texts, [""] * len(texts)).value == 0.0


def test_order_counts_in_rouge_l_only():
    assert rouge_1(["a b c", "d"], ["c b a", "d"]).value == 1.0
    assert rouge_l(["a b c", "d"], ["c b a", "d"]).value == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize("metric", [rouge_1, rouge_l])
def test_what_cannot_be_measured_raises_and_is_never_zero(metric):
    with pytest.raises(ValueError, match="at least 2"):
        metric(["a"], ["a"])
    with pytest.raises(ValueError, match="original 1 has no word"):
        metric(["a", "?!"], ["a", "?!"])
    with pytest.raises(ValueError, match="zip"):
        metric(["a", "b"], ["a"])
