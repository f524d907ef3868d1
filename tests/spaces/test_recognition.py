import numpy as np
import pytest

from embinv.spaces.moments import moments_of
from embinv.spaces.recognition import Seen, recognise

DIM = 48


def space(seed, dim=DIM):
    """An encoder of a kind: texts are points in 12 dimensions, of which each coordinate mixes some."""
    return np.random.default_rng(seed).normal(size=(12, dim))


def texts(seed, rows, scales=1.0):
    return np.random.default_rng(seed).normal(size=(rows, 12)) * scales + 0.5 * scales


def seen(vectors):
    moments = moments_of((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    return Seen(moments.statistics(), moments.shape())


ONE, OTHER = space(0), space(1)
TRAINED = seen(texts(2, 2000) @ ONE)
OTHER_TEXTS = np.array([0.1, 3.0] * 6)
ROTATION = np.linalg.qr(np.random.default_rng(3).normal(size=(DIM, DIM)))[0]


def verdict(vectors, trained=TRAINED, dim=DIM):
    return recognise(seen(vectors), trained, dim, "one")


def test_the_encoders_own_vectors_are_alike():
    found = verdict(texts(4, 500) @ ONE)
    assert (found.verdict, found.refused) == ("alike", False)
    assert found.agreement > 0.9
    assert found.mean_cosine > 0.9
    assert found.spectrum_distance < 0.1


def test_other_texts_of_the_encoder_are_not_refused():
    found = verdict(texts(5, 500, OTHER_TEXTS) @ ONE)
    assert not found.refused
    assert found.agreement < verdict(texts(4, 500) @ ONE).agreement


@pytest.mark.parametrize("rows", [50, 500, 5000])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda vectors: texts(4, len(vectors)) @ OTHER,
        lambda vectors: vectors @ ROTATION,
        lambda vectors: vectors[:, np.random.default_rng(6).permutation(DIM)],
        lambda vectors: np.random.default_rng(7).normal(size=vectors.shape),
    ],
    ids=["another encoder", "rotated", "permuted", "noise"],
)
def test_vectors_of_another_space_are_refused_with_figures(spoil, rows):
    found = verdict(spoil(texts(4, rows) @ ONE))
    assert (found.verdict, found.refused) == ("unlike", True)
    assert "agree by" in found.reason


def test_a_change_of_sign_is_seen_by_the_mean():
    found = verdict(-(texts(4, 500) @ ONE))
    assert found.refused
    assert "the signs differ" in found.reason


def test_another_dimension_is_refused_and_named():
    found = verdict(texts(4, 50) @ space(0, 32))
    assert found.refused
    assert "they have 32 dimensions, those of one have 48" in found.reason


def test_few_vectors_or_an_unknown_training_are_not_judged():
    assert verdict(texts(4, 10) @ OTHER).verdict == "unknown"
    assert verdict(texts(4, 500) @ OTHER, trained=None).verdict == "unknown"
    assert verdict(texts(4, 500) @ OTHER, trained=Seen(TRAINED.statistics, None)).verdict == "unknown"


def test_scale_changes_nothing_but_the_norm():
    vectors = texts(4, 500) @ ONE
    moments = moments_of((3 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    found = recognise(Seen(moments.statistics(), moments.shape()), TRAINED, DIM, "one")
    assert found.verdict == "alike"
    assert (found.norm_mean, found.expected_norm) == (pytest.approx(3.0), pytest.approx(1.0))
