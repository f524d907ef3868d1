"""embinv/audit/topics.py: groups of texts that share words, and what is told of them."""

import numpy as np
import pytest

from embinv.audit.topics import find_topics

BANK = [f"transfer money account bank customer{number}" for number in range(30)]
CLINIC = [f"patient diagnosed medication hospital person{number}" for number in range(20)]


def topics(texts, given=None, groups=2, k=5, seed=0, may_show=lambda word: True):
    return find_topics(texts, np.full(len(texts), np.nan) if given is None else given, groups, k, seed, may_show)


def test_texts_of_two_kinds_make_two_groups_with_their_words_and_shares():
    given = np.array([0.0] * 30 + [1.0] * 10 + [0.0] * 10)
    bank, clinic = topics(BANK + CLINIC, given)
    assert (bank["n"], clinic["n"]) == (30, 20) and bank["share"] == 0.6
    assert set(bank["terms"]) <= {"transfer", "money", "account", "bank"} and bank["terms"]
    assert set(clinic["terms"]) == {"patient", "diagnosed", "medication", "hospital"}
    assert (bank["given_away"], clinic["given_away"]) == (0.0, 0.5)
    assert clinic["given_away_se"] == pytest.approx(np.std([0, 1] * 10, ddof=1) / np.sqrt(20))


def test_words_that_few_texts_hold_and_words_that_may_not_be_shown_are_not_told():
    told = {term for topic in topics(BANK + CLINIC, may_show=lambda word: word != "bank") for term in topic["terms"]}
    assert "bank" not in told and "money" in told
    assert not any(term.startswith(("customer", "person")) for term in told)


def test_the_same_seed_gives_the_same_topics():
    texts = [
        f"{word} {other}" for word in ("red", "green", "blue") for other in ("car", "boat", "bike") for _ in range(9)
    ]
    assert topics(texts, groups=4, seed=3) == topics(texts, groups=4, seed=3)


def test_what_is_given_away_is_unknown_where_fewer_than_two_are_known():
    given = np.full(50, np.nan)
    given[0] = 1.0
    assert all(topic["given_away"] is None for topic in topics(BANK + CLINIC, given))


@pytest.mark.parametrize("texts", [["one"], ["one", "two", "three"] * 2, [""] * 30, ["same words"] * 30])
def test_there_are_no_topics_where_no_word_tells_texts_apart(texts):
    assert topics(texts) == []


def test_no_group_is_told_of_fewer_texts_than_k():
    texts = BANK + CLINIC[:4]
    assert all(topic["n"] >= 5 for topic in topics(texts, groups=8))
