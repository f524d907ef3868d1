import pytest
import torch
from torch.nn import functional as F

from embinv.models.adaln import (
    Attention,
    ConditionedBlock,
    ConditionedNorm,
    FeedForward,
    RMSNorm,
    attend,
    modulate,
    rotary_table,
    rotate,
    zero_initialise,
)
from tests.fakes import awaken

HIDDEN, HEADS, FFN = 16, 2, 32


def block(adaln, qk_norm=True):
    torch.manual_seed(0)
    return ConditionedBlock(HIDDEN, HEADS, FFN, qk_norm, adaln, dropout=0.0)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("adaln", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_zero_initialised_block_is_the_identity_whatever_the_condition(adaln, qk_norm):
    new = block(adaln, qk_norm)
    zero_initialise(new)
    x = noise(2, 5, HIDDEN)
    for condition in (torch.zeros(2, HIDDEN), 10 * noise(2, HIDDEN, seed=1)):
        assert torch.equal(new(x, condition, rotary_table(5, HIDDEN // HEADS)), x)


@pytest.mark.parametrize("adaln", [True, False])
def test_awakened_block_is_not_the_identity(adaln):
    new = awaken(block(adaln))
    x = noise(2, 5, HIDDEN)
    assert not torch.allclose(new(x, noise(2, HIDDEN, seed=1), None), x, atol=1e-2)


@pytest.mark.parametrize("adaln", [True, False])
def test_zero_initialised_block_can_learn_to_leave_the_identity(adaln):
    new = block(adaln)
    zero_initialise(new)
    new(noise(2, 5, HIDDEN), noise(2, HIDDEN, seed=1), None).square().sum().backward()
    zeros = [new.modulation.weight] if adaln else [new.attention.output.weight, new.feed_forward.down.weight]
    assert all(parameter.grad.abs().sum() > 0 for parameter in zeros)


def test_condition_moves_the_block_only_with_adaln():
    x, one, two = noise(2, 5, HIDDEN), noise(2, HIDDEN, seed=1), noise(2, HIDDEN, seed=2)
    with_condition, without = awaken(block(True)), awaken(block(False))
    assert not torch.allclose(with_condition(x, one, None), with_condition(x, two, None), atol=1e-3)
    assert torch.equal(without(x, one, None), without(x, two, None))


def test_block_equals_the_papers_equations_written_out():
    new = awaken(block(True))
    x, condition = noise(2, 5, HIDDEN), noise(2, HIDDEN, seed=1)
    rotary = rotary_table(5, HIDDEN // HEADS)
    raw = F.linear(condition, new.modulation.weight, new.modulation.bias)
    beta_1, gamma_1, alpha_1, beta_2, gamma_2, alpha_2 = (part.unsqueeze(1) for part in raw.split(HIDDEN, dim=1))

    def norm(y):
        return y / (y.square().mean(-1, keepdim=True) + torch.finfo(y.dtype).eps).sqrt()

    y = x + alpha_1 * new.attention(norm(x) * (1 + gamma_1) + beta_1, rotary)
    y = y + alpha_2 * new.feed_forward(norm(y) * (1 + gamma_2) + beta_2)
    assert torch.allclose(new(x, condition, rotary), y, atol=1e-5)


def test_attention_equals_softmax_of_rotated_normalised_products():
    torch.manual_seed(0)
    layer = awaken(Attention(HIDDEN, HEADS, qk_norm=True))
    x, (cosine, sine) = noise(1, 5, HIDDEN), rotary_table(5, HIDDEN // HEADS)
    width = HIDDEN // HEADS
    heads = []
    for head in range(HEADS):
        rows = slice(head * width, (head + 1) * width)
        query, key, value = (F.linear(x[0], part.weight[rows]) for part in (layer.query, layer.key, layer.value))
        query, key = layer.query_norm(query), layer.key_norm(key)
        query, key = (rotate(part[None, None], cosine, sine)[0, 0] for part in (query, key))
        heads.append((query @ key.T / width**0.5).softmax(-1) @ value)
    expected = F.linear(torch.cat(heads, dim=-1), layer.output.weight)
    assert torch.allclose(layer(x, (cosine, sine))[0], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_written_out_equals_the_fused_kernel(dtype):
    query, key, value = (noise(2, 3, 7, 8, seed=seed).to(dtype) for seed in range(3))
    found, fused = attend(query, key, value), F.scaled_dot_product_attention(query, key, value)
    assert found.dtype == dtype
    assert torch.allclose(found, fused, atol=1e-5 if dtype == torch.float32 else 3e-2)


def test_rotated_products_depend_on_the_distance_alone():
    cosine, sine = rotary_table(40, 8)
    query, key = noise(8), noise(8, seed=1)
    rotated = [rotate(part.expand(1, 1, 40, 8), cosine, sine)[0, 0] for part in (query, key)]
    products = rotated[0] @ rotated[1].T  # [40, 40]
    for distance in (-7, -1, 0, 3, 20):
        diagonal = products.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)
    assert products[0].std() > 1e-2  # and they do depend on it


def test_rotation_keeps_lengths_and_leaves_position_zero_alone():
    cosine, sine = rotary_table(40, 8)
    x = noise(1, 1, 40, 8)
    rotated = rotate(x, cosine, sine)
    assert torch.allclose(rotated.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(rotated[..., 0, :], x[..., 0, :])


def test_attention_without_rotary_positions_is_blind_to_order():
    layer = awaken(Attention(HIDDEN, HEADS, qk_norm=True))
    x, order = noise(1, 6, HIDDEN), torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(layer(x, None)[:, order], layer(x[:, order], None), atol=1e-5)
    rotary = rotary_table(6, HIDDEN // HEADS)
    assert not torch.allclose(layer(x, rotary)[:, order], layer(x[:, order], rotary), atol=1e-3)


def test_qk_norm_makes_attention_blind_to_the_scale_of_queries():
    normed, plain = (awaken(Attention(HIDDEN, HEADS, qk_norm)) for qk_norm in (True, False))
    x = noise(1, 6, HIDDEN)
    before = [layer(x, None) for layer in (normed, plain)]
    with torch.no_grad():
        for layer in (normed, plain):
            layer.query.weight.mul_(7.0)
    assert torch.allclose(normed(x, None), before[0], atol=1e-4)
    assert not torch.allclose(plain(x, None), before[1], atol=1e-3)


def test_attention_reads_both_directions():
    layer = awaken(Attention(HIDDEN, HEADS, qk_norm=True))
    x = noise(1, 5, HIDDEN).requires_grad_()
    layer(x, None)[0, 2].sum().backward()
    assert (x.grad[0].abs().sum(dim=-1) > 0).all()


def test_attention_and_feed_forward_have_no_biases():
    names = [
        name
        for layer in (Attention(HIDDEN, HEADS, True), FeedForward(HIDDEN, FFN))
        for name, _ in layer.named_parameters()
    ]
    assert not [name for name in names if name.endswith("bias")]


def test_modulation_by_zero_changes_nothing():
    x = noise(2, 3, HIDDEN)
    assert torch.equal(modulate(x, torch.zeros(2, HIDDEN), torch.zeros(2, HIDDEN)), x)


@pytest.mark.parametrize("adaln", [True, False])
def test_last_norm_starts_as_a_plain_rms_norm(adaln):
    last = ConditionedNorm(HIDDEN, adaln)
    zero_initialise(last)
    x = 5 * noise(2, 3, HIDDEN)
    rms = last(x, noise(2, HIDDEN, seed=1)).square().mean(dim=-1)
    assert torch.allclose(rms, torch.ones_like(rms), atol=1e-4)


def test_rms_norm_keeps_the_inputs_dtype():
    assert RMSNorm(HIDDEN)(noise(2, HIDDEN).bfloat16()).dtype == torch.bfloat16
