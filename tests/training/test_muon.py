import pytest
import torch
from torch import nn
from torch.optim import Muon as TorchMuon

from embinv.training.muon import Muon, orthogonalise

SHAPES = [(64, 64), (48, 64), (64, 48), (64, 256), (256, 64), (1, 8), (8, 1)]


def with_singular_values(shape, values, seed=0):
    """A random matrix of these singular values, and its singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    return left * values @ right, left, right


def found_values(matrix, left, right):
    """Singular values of what is made of a matrix that keeps its singular vectors, and how far it left them."""
    turned = left.T @ matrix.float() @ right.T
    return turned.diagonal(), (turned - torch.diag(turned.diagonal())).norm() / turned.norm()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("smallest", [1.0, 0.1, 0.02])
def test_singular_values_come_near_one_and_vectors_stay(shape, smallest):
    values = torch.logspace(0, torch.log10(torch.tensor(smallest)).item(), min(shape))
    matrix, left, right = with_singular_values(shape, values)
    result = orthogonalise(matrix)
    assert result.shape == shape and result.dtype == torch.bfloat16
    found, strayed = found_values(result, left, right)
    # the whole range of the four polynomials, and what three digits of bfloat16 add
    assert found.min() > 0.85 and found.max() < 1.16
    assert strayed < 0.1


def test_values_that_are_too_small_grow_and_none_explodes():
    values = torch.logspace(0, -5, 64)
    for shape in ((64, 64), (64, 256), (256, 64)):
        matrix, left, right = with_singular_values(shape, values)
        found, _ = found_values(orthogonalise(matrix), left, right)
        assert found.abs().max() < 1.16
        assert (found[values > 0.02] > 0.85).all()


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e12])
def test_scale_does_not_matter(scale):
    matrix = torch.randn(32, 96, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalise(matrix * scale), orthogonalise(matrix), atol=0.02, rtol=0.02)


def test_zeros_stay_zeros():
    assert (orthogonalise(torch.zeros(8, 32)) == 0).all()


def test_it_leans_the_way_that_five_steps_of_newton_and_schulz_do():
    """PyTorch's own, on a gradient as they are: singular values that fall off."""
    torch.manual_seed(0)
    for shape in ((96, 96), (64, 256)):
        matrix, *_ = with_singular_values(shape, 1 / torch.arange(1.0, min(shape) + 1) ** 0.5)
        ours, theirs = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        ours.grad, theirs.grad = matrix.clone(), matrix.clone()
        Muon([ours], lr=0.5).step()
        TorchMuon([theirs], lr=0.5, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
        assert torch.cosine_similarity(ours.detach().flatten(), theirs.detach().flatten(), dim=0) > 0.97
        assert ours.norm().item() == pytest.approx(theirs.norm().item(), rel=0.15)


def test_momentum_is_nesterovs_and_decay_is_decoupled():
    start = torch.randn(16, 16, generator=torch.Generator().manual_seed(2))
    gradients = [torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)]
    weight = nn.Parameter(start.clone())
    optimizer = Muon([weight], lr=0.1, weight_decay=0.5)
    expected, momentum = start.clone(), torch.zeros(16, 16)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        update = orthogonalise(0.05 * gradient + 0.95 * momentum).float()
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * 16**0.5 * update
    torch.testing.assert_close(weight.detach(), expected, atol=2e-3, rtol=0)


def test_a_weight_without_a_gradient_stays(monkeypatch):
    weight = nn.Parameter(torch.ones(4, 4))
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert (weight == 1).all()


def test_what_is_no_matrix_is_refused():
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        Muon([nn.Parameter(torch.zeros(5))], lr=0.1)
