"""embinv/models/packed.py: what it makes faster stays what it is in adaln.py."""

import pytest
import torch
from torch.nn import functional as F

from embinv.models.adaln import ConditionedBlock, RMSNorm, rotary_table, rotate
from embinv.models.packed import PackedBlock, PackedLinear, inverse_rms, normalise, packs, rotate_
from tests.fakes import awaken

pytestmark = pytest.mark.skipif(
    not packs(torch.device("cpu")), reason="this CPU's oneDNN does not multiply in bfloat16"
)
HIDDEN, HEADS = 32, 2


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_only_a_cpu_packs():
    assert not packs(torch.device("cuda"))
    assert not packs(torch.device("meta"))


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 40), (129,)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_packed_map_is_the_plain_one_bit_for_bit(shape, bias):
    weight, shift = noise(48, HIDDEN), noise(48, seed=1) if bias else None
    x = noise(*shape, HIDDEN, seed=2)
    rounded = [None if part is None else part.bfloat16() for part in (x, weight, shift)]
    found = PackedLinear(weight, shift)(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, F.linear(*rounded))


@torch.inference_mode()
def test_gelu_that_comes_with_a_product_is_the_tanh_one():
    x, weight = noise(50, HIDDEN), noise(48, HIDDEN, seed=1) * HIDDEN**-0.5
    product = F.linear(x.bfloat16().float(), weight.bfloat16().float())
    expected = F.gelu(product, approximate="tanh")
    assert (expected - F.gelu(product)).abs().max() > 2e-4  # the other one is further away than what is compared here
    found = PackedLinear(weight, gelu=True)(x)
    assert torch.allclose(found.float(), expected, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("learned", [False, True])
def test_norm_is_rmsnorm(scale, learned):
    norm = RMSNorm(HIDDEN, elementwise_affine=learned)
    if learned:
        norm.weight.data.copy_(noise(HIDDEN, seed=1))
    x = noise(3, 5, HIDDEN) * scale
    with torch.inference_mode():
        assert torch.allclose(normalise(x, norm), norm(x), rtol=1e-5, atol=1e-6)
        assert inverse_rms(x, None).shape == (3, 5, 1)


def test_rotation_in_place_is_rotation():
    x, (cosine, sine) = noise(3, 5, 2, HEADS, 8), rotary_table(5, 8)
    expected = rotate(x.transpose(1, 3), cosine, sine).transpose(1, 3)  # the place is the last axis but one there
    rotate_(x, cosine, sine)
    assert torch.allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize("adaln", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("rope", [True, False])
@torch.inference_mode()
def test_packed_block_says_what_the_block_says_and_leaves_its_input(adaln, qk_norm, rope):
    torch.manual_seed(0)
    block = awaken(ConditionedBlock(HIDDEN, HEADS, 64, qk_norm, adaln, dropout=0.1), scale=0.1)
    x, condition = noise(3, 6, HIDDEN), noise(3, HIDDEN, seed=1)
    rotary = rotary_table(6, HIDDEN // HEADS) if rope else None
    before, expected = x.clone(), block(x, condition, rotary)
    found = PackedBlock(block)(x, condition, rotary)
    assert torch.equal(x, before)
    assert found.dtype == torch.float32
    assert (expected - x).abs().mean() > 0.05  # the branches say something
    assert (found - expected).abs().mean() < 0.02 * (expected - x).abs().mean()
