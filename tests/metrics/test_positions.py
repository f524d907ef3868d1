import numpy as np
import pytest

from embinv.metrics.positions import LengthBucket, accuracy_by_length, accuracy_by_position
from embinv.metrics.tokens import token_accuracy


def random_texts(count, seed, longest=9):
    rng = np.random.default_rng(seed)
    originals = [rng.integers(0, 3, size=rng.integers(1, longest)).tolist() for _ in range(count)]
    recovered = [rng.integers(0, 3, size=rng.integers(0, longest)).tolist() for _ in range(count)]
    return originals, recovered


def test_each_position_equals_counting_the_texts_that_reach_it():
    originals, recovered = random_texts(60, 0)
    figures = accuracy_by_position(originals, recovered)
    assert len(figures) == max(map(len, originals))
    for place, figure in enumerate(figures):
        right = [y[place : place + 1] == x[place : place + 1] for x, y in zip(originals, recovered, strict=True)]
        right = [hit for hit, x in zip(right, originals, strict=True) if len(x) > place]
        assert figure.value == pytest.approx(np.mean(right))
        assert figure.standard_error == pytest.approx(np.std(right, ddof=1) / len(right) ** 0.5)
        assert figure.n == len(right)


def test_positions_weighted_by_their_texts_add_up_to_the_token_accuracy():
    originals, recovered = random_texts(60, 1)
    figures = accuracy_by_position(originals, recovered)
    right = sum(figure.value * figure.n for figure in figures)
    assert right / sum(figure.n for figure in figures) == pytest.approx(token_accuracy(originals, recovered).value)


def test_position_that_fewer_than_two_texts_reach_has_no_figure():
    figures = accuracy_by_position([[1, 2, 3], [1, 2]], [[1, 2, 3], [1, 0]], positions=5)
    assert [figure and figure.value for figure in figures] == [1.0, 0.5, None, None, None]


def test_positions_beyond_those_asked_for_are_left_out():
    originals, recovered = random_texts(30, 2)
    assert accuracy_by_position(originals, recovered, 2) == accuracy_by_position(originals, recovered)[:2]


def test_buckets_end_at_quartiles_of_the_lengths():
    originals = [[1] * length for length in (8, 7, 6, 5, 4, 3, 2, 1)]
    buckets = accuracy_by_length(originals, originals)
    assert [(each.shortest, each.longest, each.n) for each in buckets] == [(1, 2, 2), (3, 4, 2), (5, 6, 2), (7, 8, 2)]
    assert all(each.accuracy.value == 1.0 for each in buckets)


def test_each_bucket_is_the_token_accuracy_of_the_texts_between_its_bounds():
    originals, recovered = random_texts(80, 3)
    buckets = accuracy_by_length(originals, recovered)
    assert sum(bucket.n for bucket in buckets) == 80
    for bucket in buckets:
        rows = [i for i, x in enumerate(originals) if bucket.shortest <= len(x) <= bucket.longest]
        assert bucket.accuracy == token_accuracy([originals[i] for i in rows], [recovered[i] for i in rows])
        assert bucket.n == len(rows)


def test_bounds_are_lengths_that_occur_and_do_not_overlap():
    originals, recovered = random_texts(80, 4)
    bounds = [
        bound for bucket in accuracy_by_length(originals, recovered) for bound in (bucket.shortest, bucket.longest)
    ]
    assert bounds == sorted(bounds) and set(bounds) <= set(map(len, originals))
    assert all(end < start for end, start in zip(bounds[1::2], bounds[2::2], strict=False))


def test_each_bucket_holds_a_quarter_where_no_two_lengths_are_equal():
    originals = [[1] * length for length in np.random.default_rng(0).permutation(np.arange(1, 101)).tolist()]
    assert [bucket.n for bucket in accuracy_by_length(originals, originals)] == [25] * 4


def test_texts_of_one_length_stand_in_one_bucket():
    [bucket] = accuracy_by_length([[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 0], [0, 0]])
    assert bucket == LengthBucket(2, 2, 3, token_accuracy([[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 0], [0, 0]]))


def test_bucket_of_one_text_has_bounds_but_no_figure():
    buckets = accuracy_by_length([[1], [1, 2]], [[1], [1, 2]])
    assert buckets == [LengthBucket(1, 1, 1, None), LengthBucket(2, 2, 1, None)]


@pytest.mark.parametrize("metric", [accuracy_by_position, accuracy_by_length])
def test_what_cannot_be_measured_raises_and_is_never_zero(metric):
    for originals in ([], [[1]], [[1], []]):
        with pytest.raises(ValueError, match="at least 2 texts, each with a content token"):
            metric(originals, originals)
    with pytest.raises(ValueError, match=r"zip|give one for each"):
        metric([[1], [2]], [[1]])


def test_no_position_at_all_is_refused():
    with pytest.raises(ValueError, match="ask for at least 1"):
        accuracy_by_position([[1], [2]], [[1], [2]], positions=0)
