import time
from itertools import pairwise

import numpy as np
import pytest

from embinv.encoders.batches import pad, token_batches
from embinv.encoders.tokens import Tokens

TOKENS = Tokens(np.arange(10, 18, dtype=np.int32), np.array([0, 3, 3, 4, 8]))  # of 3, 0, 1 and 4 tokens


@pytest.fixture(scope="module")
def lengths():
    return np.random.default_rng(0).integers(1, 200, size=1000)


@pytest.mark.parametrize("budget", [1, 100, 1024, 10**9])
def test_every_text_stands_in_one_batch(lengths, budget):
    rows = np.concatenate(token_batches(lengths, budget))
    assert sorted(rows.tolist()) == list(range(1000))


@pytest.mark.parametrize("budget", [200, 1024, 8192])
def test_batch_keeps_to_its_budget_and_ends_before_it_only_half_full_and_where_a_shorter_text_follows(lengths, budget):
    batches = token_batches(lengths, budget)
    early = 0
    for rows, following in pairwise(batches):
        longest = int(lengths[rows].max())
        assert len(rows) * longest <= budget
        if (len(rows) + 1) * longest <= budget:
            early += 1
            assert lengths[following[0]] < lengths[rows[-1]]
            assert len(rows) >= round(0.5 * (budget // longest))
    assert 0 < early < len(batches)


def test_shorter_texts_are_hardly_padded(lengths):
    padded = sum(len(rows) * int(lengths[rows].max()) for rows in token_batches(lengths, 1024))
    whole = np.sort(lengths)[::-1]
    plain, start = 0, 0
    while start < len(whole):
        count = max(1, 1024 // int(whole[start]))
        plain += len(whole[start : start + count]) * int(whole[start])
        start += count
    assert padded - lengths.sum() < 0.8 * (plain - lengths.sum())


def test_longest_texts_come_first_and_lengths_never_rise(lengths):
    order = np.concatenate(token_batches(lengths, 1024))
    assert (np.diff(lengths[order]) <= 0).all()


def test_text_above_the_budget_stands_alone():
    assert [rows.tolist() for rows in token_batches(np.array([3, 50, 3]), 10)] == [[1], [0, 2]]


def test_no_texts_make_no_batches_and_empty_texts_do():
    assert token_batches(np.array([], dtype=np.int64), 100) == []
    assert [rows.tolist() for rows in token_batches(np.array([0, 0, 0]), 2)] == [[0, 1], [2]]


def test_a_hundred_thousand_texts_are_cut_in_well_under_a_second():
    lengths = np.random.default_rng(0).integers(1, 60, size=100_000)
    began = time.perf_counter()
    token_batches(lengths, 8192)
    assert time.perf_counter() - began < 0.5


def test_padding_stands_on_the_right():
    ids, mask = pad(TOKENS, np.array([2, 0, 3]), pad_id=7, side="right")
    assert ids.tolist() == [[13, 7, 7, 7], [10, 11, 12, 7], [14, 15, 16, 17]]
    assert mask.tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert ids.dtype == mask.dtype == np.int64


def test_padding_stands_on_the_left():
    ids, mask = pad(TOKENS, np.array([2, 0, 3]), pad_id=7, side="left")
    assert ids.tolist() == [[7, 7, 7, 13], [7, 10, 11, 12], [14, 15, 16, 17]]
    assert mask.tolist() == [[0, 0, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_without_tokens_is_all_padding(side):
    ids, mask = pad(TOKENS, np.array([1]), pad_id=7, side=side)
    assert ids.tolist() == [[7]]
    assert mask.tolist() == [[0]]
