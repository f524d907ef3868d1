import numpy as np
import pytest

from embinv.audit.rotation_attack import UNKNOWN, rotation_rows, undo_rotation
from embinv.defences.rotation import Rotation
from embinv.metrics.figures import mean_figure
from embinv.spaces.linear import procrustes

DIM = 12
RNG = np.random.default_rng(0)
SHAPE = RNG.normal(size=(DIM, DIM)) * np.linspace(2, 0.1, DIM)  # correlated directions of different widths


def vectors(rows, seed):
    drawn = np.random.default_rng(seed).normal(size=(rows, DIM)) @ SHAPE.T + 0.5
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


USUAL, KNOWN, STORE = vectors(400, 1), vectors(40, 2), vectors(100, 3)
SECRET = Rotation().fit(USUAL, 9)


def cosine(one, other):
    return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).mean())


def rotated(rows):
    return SECRET.protect(rows, 0)


@pytest.mark.parametrize("k", [12, 13, 40])
def test_pairs_that_span_the_space_give_the_rotation_away(k):
    found = undo_rotation(KNOWN[:k], rotated(KNOWN[:k]), USUAL)(rotated(STORE))
    np.testing.assert_allclose(found, STORE, atol=2e-4)


@pytest.mark.parametrize("k", [1, 5, 11])
def test_fewer_pairs_give_what_lies_in_their_span(k):
    found = undo_rotation(KNOWN[:k], rotated(KNOWN[:k]), USUAL)(rotated(STORE))
    span = np.linalg.qr(KNOWN[:k].T.astype(np.float64))[0]  # [D, k]
    np.testing.assert_allclose(found @ span, STORE @ span, atol=1e-4)


def test_the_rest_is_the_gaussians_mean_beside_what_is_known():
    k = 4
    found = undo_rotation(KNOWN[:k], rotated(KNOWN[:k]), USUAL)(rotated(STORE))
    basis = np.linalg.qr(np.concatenate([KNOWN[:k].T, RNG.normal(size=(DIM, DIM - k))], axis=1).astype(np.float64))[0]
    covariance = np.cov(USUAL.astype(np.float64), rowvar=False)
    covariance += UNKNOWN * np.trace(covariance) / DIM * np.eye(DIM)
    mean, inside, outside = USUAL.astype(np.float64).mean(axis=0), basis[:, :k], basis[:, k:]
    apart = STORE @ inside - mean @ inside  # [N, k]
    regression = np.linalg.inv(inside.T @ covariance @ inside) @ inside.T @ covariance @ outside
    np.testing.assert_allclose(found @ outside, mean @ outside + apart @ regression, atol=1e-4)


@pytest.mark.parametrize("k", [3, 6, 9])
def test_the_span_filled_in_is_closer_than_the_span_alone_and_than_procrustes_as_it_is(k):
    pairs, seen = (KNOWN[:k], rotated(KNOWN[:k])), rotated(STORE)
    turned = procrustes(pairs[1], pairs[0])(seen)
    span = np.linalg.qr(KNOWN[:k].T.astype(np.float64))[0]
    alone = turned @ span @ span.T
    filled = undo_rotation(*pairs, USUAL)(seen)
    assert max(cosine(turned, STORE), cosine(alone, STORE)) < cosine(filled, STORE)


def test_rows_take_the_first_pairs_and_share_is_over_the_undefended_figure():
    def measure(seen):
        return mean_figure(((seen * STORE).sum(axis=1)).tolist())

    rows = rotation_rows((KNOWN, rotated(KNOWN)), USUAL, rotated(STORE), (2, 12), measure, mean_figure([0.5, 0.5]))
    assert [row["pairs"] for row in rows] == [2, 12]
    expected = measure(undo_rotation(KNOWN[:2], rotated(KNOWN[:2]), USUAL)(rotated(STORE)))
    assert rows[0]["token_f1"] == pytest.approx(expected.value, abs=1e-4)
    assert rows[1]["f1_share"] == pytest.approx(2.0, abs=1e-3)


def test_a_share_of_nothing_is_null():
    rows = rotation_rows(
        (KNOWN, rotated(KNOWN)), USUAL, rotated(STORE), [12], lambda seen: mean_figure([0, 0]), mean_figure([0, 0])
    )
    assert rows[0]["f1_share"] is None


def test_one_vector_does_not_say_what_others_are_like():
    with pytest.raises(ValueError, match="give at least 2"):
        undo_rotation(KNOWN, rotated(KNOWN), USUAL[:1])
