"""Maps between spaces against closed forms: rotations come back, optima are stationary, primal and dual agree."""

import numpy as np
import pytest

from embinv.spaces.linear import procrustes, ridge, unchanged


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def rotation(dim, seed=1):
    return np.linalg.qr(normal(dim, dim, seed=seed))[0]


@pytest.mark.parametrize("centred", [False, True])
def test_procrustes_undoes_a_rotation(centred):
    source, turn = normal(40, 8), rotation(8)
    found = procrustes(source, source @ turn, centred)
    assert found.weight == pytest.approx(turn)
    fresh = normal(5, 8, seed=2)
    assert found(fresh) == pytest.approx(fresh @ turn, abs=1e-5)


def test_centred_procrustes_undoes_a_shift_and_a_scaled_one_a_change_of_length_too():
    source, turn = normal(40, 8), rotation(8)
    shifted = (source - 3) @ turn + 5
    assert procrustes(source, shifted, centred=True)(source) == pytest.approx(shifted, abs=1e-5)
    longer = 70 * source @ turn + 5
    assert procrustes(source, longer, centred=True, scaled=True)(source) == pytest.approx(longer, abs=1e-4)
    assert procrustes(source, longer, centred=True).weight == pytest.approx(turn)


def test_no_rotation_of_the_plane_is_nearer_than_that_of_procrustes():
    source, target = normal(10, 2), normal(10, 2, seed=3)
    best = np.square(procrustes(source, target)(source) - target).sum()
    for angle in np.linspace(0, 2 * np.pi, 721):
        c, s = np.cos(angle), np.sin(angle)
        for turn in ([[c, -s], [s, c]], [[c, s], [s, -c]]):
            assert np.square(source @ np.array(turn) - target).sum() >= best - 1e-5


@pytest.mark.parametrize(("dim", "target_dim"), [(8, 8), (5, 8), (8, 5)])
@pytest.mark.parametrize("rows", [3, 30])
def test_weight_of_procrustes_is_orthonormal_whatever_the_dimensions_and_however_few_the_pairs(dim, target_dim, rows):
    weight = procrustes(normal(rows, dim), normal(rows, target_dim, seed=3)).weight
    product = weight @ weight.T if dim <= target_dim else weight.T @ weight
    assert product == pytest.approx(np.eye(min(dim, target_dim)), abs=1e-12)


@pytest.mark.parametrize(("dim", "target_dim"), [(5, 8), (8, 5)])
def test_unequal_dimensions_are_as_if_the_smaller_space_were_padded_with_zeros(dim, target_dim):
    source, target, larger = normal(30, dim), normal(30, target_dim, seed=3), 8
    padded = [np.pad(each, ((0, 0), (0, larger - each.shape[1]))) for each in (source, target)]
    expected = procrustes(padded[0], padded[1]).weight[:dim, :target_dim]
    assert procrustes(source, target).weight == pytest.approx(expected)


def test_fewer_pairs_than_dimensions_are_matched_exactly_and_the_same_each_time():
    source, turn = normal(5, 8), rotation(8)
    found = procrustes(source, source @ turn)
    assert found(source) == pytest.approx(source @ turn, abs=1e-5)
    assert (procrustes(source, source @ turn).weight == found.weight).all()


@pytest.mark.parametrize("rows", [4, 9, 40])  # fewer than dimensions: by the dual
def test_ridge_is_where_the_gradient_vanishes(rows):
    source, target, strength = normal(rows, 8) + 2, normal(rows, 3, seed=3), 0.3
    found = ridge(source, target, strength)
    x, y = source - source.mean(0), target - target.mean(0)
    penalty = strength * rows * x.var(0).mean()
    assert x.T @ (x @ found.weight - y) + penalty * found.weight == pytest.approx(np.zeros((8, 3)), abs=1e-9)


def test_ridge_undoes_any_linear_map_at_a_small_strength_and_says_the_mean_at_a_large_one():
    source = normal(40, 6)
    target = source @ normal(6, 4, seed=4) + 7
    assert ridge(source, target, 1e-10)(source) == pytest.approx(target, abs=1e-4)
    assert ridge(source, target, 1e10)(source) == pytest.approx(np.tile(target.mean(0), (40, 1)), abs=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 127.0])
def test_strength_means_the_same_at_any_length_of_the_vectors(factor):
    source, target = normal(20, 6), normal(20, 4, seed=4)
    assert ridge(factor * source, target, 0.1)(factor * source) == pytest.approx(ridge(source, target, 0.1)(source))


def test_a_map_gives_float32_of_any_number_of_rows_and_refuses_other_spaces():
    found = procrustes(normal(20, 6), normal(20, 4))
    assert found(np.zeros((0, 6))).shape == (0, 4) and found(np.ones((2, 6), np.float16)).dtype == np.float32
    with pytest.raises(ValueError, match=r"takes vectors \[N, 6\], these are \[2, 5\]"):
        found(np.ones((2, 5)))


def spoilt(rows, dim, value):
    vectors = normal(rows, dim)
    vectors[1, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        (normal(3, 4), normal(2, 4), r"these are \[3, 4\] and \[2, 4\]"),
        (normal(3), normal(3, 4), "one row in each"),
        (normal(0, 4), normal(0, 4), "one row in each"),
        (spoilt(3, 4, np.nan), normal(3, 4), "source vectors hold NaN"),
        (normal(3, 4), spoilt(3, 4, np.inf), "target vectors hold NaN"),
        (np.full((3, 4), 0.1), normal(3, 4), "source vectors are all alike"),
        (normal(3, 4), np.full((3, 4), 0.1), "target vectors are all alike"),
    ],
)
def test_what_no_map_can_be_fitted_on_is_refused(source, target, sentence):
    for fit in (lambda x, y: procrustes(x, y, centred=True), lambda x, y: ridge(x, y, 0.1)):
        with pytest.raises(ValueError, match=sentence):
            fit(source, target)


def test_uncentred_vectors_may_be_alike_but_not_zero():
    assert procrustes(np.full((3, 4), 0.1), normal(3, 4)).weight.shape == (4, 4)
    with pytest.raises(ValueError, match="source vectors are all zero"):
        procrustes(np.zeros((3, 4)), normal(3, 4))


@pytest.mark.parametrize("strength", [0, -1, np.inf, np.nan])
def test_a_strength_that_is_no_positive_number_is_refused(strength):
    with pytest.raises(ValueError, match="strength of ridge"):
        ridge(normal(9, 4), normal(9, 4), strength)


@pytest.mark.parametrize(("dim", "target_dim"), [(4, 4), (3, 5), (5, 3)])
def test_unchanged_vectors_are_cut_or_filled_up_with_zeros(dim, target_dim):
    source = normal(6, dim)
    expected = np.pad(source, ((0, 0), (0, max(0, target_dim - dim))))[:, :target_dim]
    assert unchanged(source, normal(6, target_dim))(source) == pytest.approx(expected)
