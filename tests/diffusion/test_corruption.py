import pytest
import torch

from embinv.diffusion.corruption import mask_by, mask_tokens

MASK = 9
DRAWS = 10_000


@pytest.mark.parametrize("t", [0.01, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0])
def test_share_of_hidden_tokens_is_t_within_sampling_error(t):
    x_0 = torch.zeros((DRAWS, 1), dtype=torch.int64)
    _, hidden = mask_tokens(x_0, torch.full((DRAWS,), t), MASK, torch.Generator().manual_seed(1))
    standard_error = (t * (1 - t) / DRAWS) ** 0.5
    assert abs(hidden.double().mean().item() - t) <= 4 * standard_error


def test_every_position_is_hidden_alike_end_and_padding_too():
    eos, pad, t = 1, 0, 0.3
    x_0 = torch.tensor([5, 6, 7, eos, pad, pad]).repeat(DRAWS, 1)
    _, hidden = mask_tokens(x_0, torch.full((DRAWS,), t), MASK, torch.Generator().manual_seed(2))
    rate = hidden.double().mean(dim=0)  # [L]
    assert (rate - t).abs().max().item() <= 4 * (t * (1 - t) / DRAWS) ** 0.5


def test_positions_are_hidden_independently_of_each_other():
    t = 0.4
    x_0 = torch.zeros((DRAWS, 2), dtype=torch.int64)
    _, hidden = mask_tokens(x_0, torch.full((DRAWS,), t), MASK, torch.Generator().manual_seed(3))
    both = hidden.all(dim=1).double().mean().item()
    assert abs(both - t * t) <= 4 * (t * t * (1 - t * t) / DRAWS) ** 0.5


def test_each_row_has_its_own_time():
    t = torch.tensor([0.1, 0.9])
    x_0 = torch.zeros((2, DRAWS), dtype=torch.int64)
    _, hidden = mask_tokens(x_0, t, MASK, torch.Generator().manual_seed(4))
    assert torch.allclose(hidden.double().mean(dim=1), t.double(), atol=4 * 0.3 / DRAWS**0.5)


def test_hidden_tokens_become_the_mask_and_the_others_stay():
    x_0 = torch.randint(0, MASK, (64, 16), generator=torch.Generator().manual_seed(5))
    z_t, hidden = mask_tokens(x_0, torch.full((64,), 0.5), MASK, torch.Generator().manual_seed(6))
    assert (z_t[hidden] == MASK).all()
    assert (z_t[~hidden] == x_0[~hidden]).all()
    assert 0 < hidden.sum() < hidden.numel()


def test_a_generator_in_the_same_state_draws_the_same_corruption():
    x_0 = torch.zeros((8, 8), dtype=torch.int64)
    first, second = (
        mask_tokens(x_0, torch.full((8,), 0.5), MASK, torch.Generator().manual_seed(7))[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_parts_of_a_batch_are_hidden_as_the_whole_batch_is():
    x_0 = torch.randint(0, MASK, (6, 16), generator=torch.Generator().manual_seed(8))
    t = torch.linspace(0.2, 0.9, 6)
    whole = mask_tokens(x_0, t, MASK, torch.Generator().manual_seed(9))
    uniforms = torch.rand((6, 16), generator=torch.Generator().manual_seed(9))
    parts = [mask_by(uniforms[rows], x_0[rows], t[rows], MASK) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
    z_t, hidden = (torch.cat(part) for part in zip(*parts, strict=True))
    assert torch.equal(z_t, whole[0])
    assert torch.equal(hidden, whole[1])
    assert 0 < whole[1].sum() < whole[1].numel()
