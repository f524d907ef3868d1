import math

import numpy as np
import pytest

from embinv.audit import utility
from embinv.audit.utility import retrieval_utility
from embinv.defences.noise import Noise
from tests.fakes import unit_vectors

VECTORS = unit_vectors(40, 8)


def noisy(scale=0.4):
    return Noise(scale).fit(VECTORS, 0).protect(VECTORS, 1)


def ranked(query, stored, row):
    """Other rows by cosine, the nearest first."""
    cosines = {
        other: float(query @ vector / np.linalg.norm(query) / np.linalg.norm(vector))
        for other, vector in enumerate(stored)
        if other != row
    }
    return sorted(cosines, key=lambda other: -cosines[other])[:10]


def test_figures_are_those_of_brute_force():
    stored = noisy()
    gains, recalls = [], []
    for row, query in enumerate(VECTORS):
        gain = {other: 10 - place for place, other in enumerate(ranked(query, VECTORS, row))}
        found = ranked(query, stored, row)
        dcg = sum(gain.get(other, 0) / math.log2(place + 2) for place, other in enumerate(found))
        gains.append(dcg / sum((10 - place) / math.log2(place + 2) for place in range(10)))
        recalls.append(len(set(found) & set(gain)) / 10)
    measured = retrieval_utility(VECTORS, stored, VECTORS)
    assert measured.ndcg_at_10.value == pytest.approx(np.mean(gains), abs=1e-6)
    assert measured.recall_at_10.value == pytest.approx(np.mean(recalls), abs=1e-9)
    assert measured.recall_at_10.standard_error == pytest.approx(np.std(recalls, ddof=1) / math.sqrt(40))
    assert measured.ndcg_at_10.n == 40


def test_the_undefended_store_loses_nothing_at_any_length_of_its_vectors():
    scaled = VECTORS * np.linspace(0.1, 10, 40, dtype=np.float32)[:, None]
    measured = retrieval_utility(VECTORS, scaled, 3 * VECTORS)
    assert (measured.ndcg_at_10.value, measured.recall_at_10.value) == pytest.approx((1, 1))


def test_order_counts_in_ndcg_and_not_in_recall():
    angles = np.linspace(0, 1.5, 11)  # eleven in a row: everyone else is relevant to each
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    turned = np.stack([np.cos(-angles), np.sin(-angles)], axis=1).astype(np.float32)
    measured = retrieval_utility(vectors, turned, vectors)
    assert measured.recall_at_10.value == 1
    assert measured.ndcg_at_10.value < 0.99


def test_a_store_of_other_vectors_finds_what_chance_finds():
    measured = retrieval_utility(unit_vectors(300, 8), unit_vectors(300, 8, seed=1), unit_vectors(300, 8))
    assert measured.recall_at_10.value == pytest.approx(10 / 299, abs=0.015)


def test_blocks_change_nothing(monkeypatch):
    whole = retrieval_utility(VECTORS, noisy(), VECTORS)
    monkeypatch.setattr(utility, "AT_ONCE", 3 * 40)
    in_blocks = retrieval_utility(VECTORS, noisy(), VECTORS)
    assert in_blocks.ndcg_at_10.value == pytest.approx(whole.ndcg_at_10.value)
    assert in_blocks.recall_at_10.value == pytest.approx(whole.recall_at_10.value)


def test_a_stored_vector_without_direction_is_as_far_as_a_right_angle():
    stored = noisy().copy()
    stored[3] = 0
    measured = retrieval_utility(VECTORS, stored, VECTORS)
    assert 0 < measured.ndcg_at_10.value < 1


@pytest.mark.parametrize(
    ("rows", "stored", "sentence"), [(10, 10, "at least 11 vectors, got 10"), (12, 11, "12 vectors, 11 stored")]
)
def test_too_few_vectors_are_refused(rows, stored, sentence):
    with pytest.raises(ValueError, match=sentence):
        retrieval_utility(VECTORS[:rows], VECTORS[:stored], VECTORS[:rows])
