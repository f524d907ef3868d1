"""The choice of a map: the right kind wins where only one can be right, on pairs that its fit has not seen."""

import numpy as np
import pytest

from embinv.metrics.figures import mean_figure
from embinv.spaces.choosing import CANDIDATES, choose_map, row_cosines
from embinv.spaces.linear import LinearMap


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def rotation(dim):
    return np.linalg.qr(normal(dim, dim, seed=1))[0]


def test_of_a_rotation_few_pairs_show_that_it_is_one():
    source = normal(40, 32)
    found = choose_map(source, source @ rotation(32) + 0.05 * normal(40, 32, seed=5))
    assert found.name.startswith("procrustes")
    assert found.scores[found.name].value > max(s.value for n, s in found.scores.items() if n.startswith("ridge"))


@pytest.mark.parametrize("kept", [24, 32])
def test_vectors_that_were_only_rounded_or_cut_stay_as_they_are(kept):
    target = normal(30, 32)
    target[:, 24:] *= 0.3  # what a cut takes away is the lesser part
    assert choose_map(np.round(20 * target)[:, :kept], target).name == "unchanged"


def test_of_a_map_that_is_no_rotation_ridge_wins():
    source = normal(200, 12)
    found = choose_map(source, source @ normal(12, 9, seed=6))
    assert found.name == "ridge 0.0001" and found.scores[found.name].value > 0.9999


def test_noise_asks_for_strength():
    source, mixing = normal(30, 24), normal(24, 24, seed=6)
    found = choose_map(source, source @ mixing + 8 * normal(30, 24, seed=7))
    assert found.name.startswith("ridge") and float(found.name.split()[1]) >= 0.1


def test_scores_are_those_of_pairs_that_the_fit_has_not_seen():
    seen = []

    def unchanged(source, target):
        seen.append({row.tobytes() for row in source})
        return LinearMap(np.eye(4), np.zeros(4), np.zeros(4))

    source = normal(50, 4)
    target = source + normal(50, 4, seed=8)
    found = choose_map(source, target, candidates={"identity": unchanged})
    assert found.folds == 5 and [len(rows) for rows in seen] == [40] * 5 + [50]
    for row in source:
        assert sum(row.tobytes() in rows for rows in seen[:5]) == 4
    by_hand = mean_figure(row_cosines(source.astype(np.float32), target).tolist())
    assert found.scores["identity"] == by_hand


@pytest.mark.parametrize(("pairs", "folds"), [(10, 2), (15, 3), (25, 5), (500, 5)])
def test_few_pairs_have_few_folds(pairs, folds):
    assert choose_map(normal(pairs, 3), normal(pairs, 3, seed=1)).folds == folds


def test_every_candidate_has_a_score_and_the_best_is_chosen():
    found = choose_map(normal(60, 5), normal(60, 7, seed=1))
    assert set(found.scores) == set(CANDIDATES)
    assert found.scores[found.name].value == max(score.value for score in found.scores.values())
    assert {score.n for score in found.scores.values()} == {60}
    again = CANDIDATES[found.name](normal(60, 5), normal(60, 7, seed=1))
    assert (found.map.weight == again.weight).all()


def test_the_same_seed_gives_the_same_and_another_one_other_folds():
    source, target = normal(40, 6), normal(40, 6, seed=1)
    one, same, other = (choose_map(source, target, seed) for seed in (3, 3, 4))
    assert one.scores == same.scores and (one.map.weight == same.map.weight).all()
    assert one.scores != other.scores


def test_cosine_of_a_row_without_direction_is_none():
    left = np.array([[1.0, 0], [0, 2], [0, 0], [1, 1]])
    right = np.array([[3.0, 0], [0, -1], [1, 0], [1, 0]])
    assert row_cosines(left, right) == pytest.approx([1, -1, 0, 0.5**0.5])


def zero_at(rows, place):
    vectors = normal(rows, 4)
    vectors[place] = 0
    return vectors


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        (normal(9, 4), normal(9, 4), "at least 10"),
        (normal(12, 4), normal(11, 4), "12 source and 11 target"),
        (zero_at(12, 7), normal(12, 4), "source row 7 is a zero vector"),
        (normal(12, 4), zero_at(12, 3), "target row 3 is a zero vector"),
    ],
)
def test_what_nothing_can_be_chosen_on_is_refused(source, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        choose_map(source, target)
