"""A denoiser in bfloat16: near float32's, rounded once, and nothing of the given model changed."""

import copy
from typing import get_args

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from embinv.models import reduced
from embinv.models.backbone import BackboneDenoiser
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.packed import PackedLinear, packs
from embinv.models.reduced import ARITHMETIC, Precision, RoundedLinear, in_bfloat16, inference_precision
from embinv.models.settings import BackboneConfig, ModelSettings
from tests.backbones import tiny_shape
from tests.fakes import awaken

VOCABULARY, DIM, LENGTH, ROWS = 97, 6, 12, 8
KINDS = {
    "mdlm": {},
    "mdlm without AdaLN": {"adaln": False},
    "mdlm without switches": {"rope": False, "qk_norm": False, "pseudo_tokens": 0, "tied_head": False},
    "backbone": {},
    "backbone with its own head": {"tie_word_embeddings": False},
    "backbone with biases": {"attention_bias": True, "mlp_bias": True, "classifier_bias": True, "norm_bias": True},
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(params=["packed", "plain"])
def way(request, monkeypatch):
    """As a CPU with oneDNN computes, and as every other device does."""
    if request.param == "plain":
        monkeypatch.setattr(reduced, "packs", lambda device: False)
    elif not packs(torch.device("cpu")):
        pytest.skip("this CPU's oneDNN does not multiply in bfloat16")
    return request.param


def model(kind):
    torch.manual_seed(0)
    if kind.startswith("mdlm"):
        settings = ModelSettings(size="tiny", **KINDS[kind])
        return awaken(ConditionalMDLM(settings.resolve(VOCABULARY, DIM, LENGTH)), scale=0.1)
    config = BackboneConfig(
        vocab_size=VOCABULARY,
        embedding_dim=DIM,
        seq_len=LENGTH,
        adaln=True,
        pseudo_tokens=2,
        dropout=0.0,
        backbone="tiny",
        transformer=tiny_shape(**KINDS[kind]),
    )
    made = BackboneDenoiser(config)
    if made.head_weight is not None:
        nn.init.normal_(made.head_weight, std=0.1)  # it comes with the backbone
    return awaken(made, scale=0.1)


def batch():
    """z_t [B, L] with half of it hidden, embeddings [B, D], and where it is hidden."""
    generator = torch.Generator().manual_seed(1)
    z_t = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    hidden = torch.rand((ROWS, LENGTH), generator=generator) < 0.5
    return z_t.masked_fill(hidden, VOCABULARY), torch.randn((ROWS, DIM), generator=generator), hidden


@torch.inference_mode()
def said(made, z_t, embedding, positions=None):
    return made(z_t, embedding, positions)


@kinds
def test_log_probabilities_are_near_float32s(way, kind):
    """With 8 bits an input of a product is off by 1 in 2^9 at most; some twenty products in a row make 1% of it."""
    made = model(kind)
    exact, rounded = said(made, *batch()), said(in_bfloat16(made), *batch())
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded.exp().sum(dim=-1), torch.ones(len(rounded)), atol=1e-5)
    assert exact.std() > 0.5  # so that being near says something
    apart = (rounded - exact).abs()
    assert 0 < apart.mean() < 0.02 * exact.std()
    assert apart.max() < 0.15 * exact.std()


@kinds
def test_it_rounds_no_more_than_autocast_does(way, kind):
    made = model(kind)
    exact, found = said(made, *batch()), said(in_bfloat16(made), *batch())
    with torch.autocast("cpu", torch.bfloat16):
        expected = said(made, *batch())
    if way == "plain":
        assert torch.equal(found, expected)
    assert (found - exact).abs().mean() < 1.1 * (expected - exact).abs().mean()


class Casts(TorchDispatchMode):
    """Remembers the shape of all that is converted from one dtype to another."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten._to_copy and (kwargs or {}).get("dtype") not in (None, args[0].dtype):
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@kinds
def test_every_matrix_is_rounded_once_and_at_no_pass(way, kind):
    made = model(kind)
    matrices = [tuple(module.weight.shape) for module in made.modules() if isinstance(module, nn.Linear)]
    weight, bias = made.head()
    assert len(matrices) > 10
    rounded = in_bfloat16(made)
    maps = [module for module in rounded.modules() if isinstance(module, (RoundedLinear, PackedLinear))]
    assert not any(isinstance(module, nn.Linear) for module in rounded.modules())
    assert all(tensor.dtype == torch.bfloat16 for module in maps for tensor in module.buffers())
    elements = sum(next(module.buffers()).numel() for module in maps)
    assert elements == sum(rows * columns for rows, columns in matrices) + len(bias) * weight.shape[1]
    with torch.no_grad(), Casts() as casts:  # in inference mode a dispatch mode sees no conversion
        rounded(*batch())
    assert casts.shapes  # what matrices are multiplied with is converted
    assert not {*matrices, tuple(weight.shape), (len(bias), weight.shape[1])} & set(casts.shapes)


@kinds
def test_given_model_stays_as_it_is_and_shares_what_is_not_rounded(way, kind):
    made = model(kind)
    before, kept = copy.deepcopy(made.state_dict()), dict(made.named_parameters())
    expected = said(made, *batch())
    rounded = in_bfloat16(made)
    said(rounded, *batch())
    assert list(made.state_dict()) == list(before)
    for name, tensor in made.state_dict().items():
        assert tensor.dtype == before[name].dtype == torch.float32
        assert torch.equal(tensor, before[name])
    assert all(parameter is kept[name] and parameter.requires_grad for name, parameter in made.named_parameters())
    assert torch.equal(said(made, *batch()), expected)
    shared = {tensor.data_ptr() for tensor in made.parameters()}
    assert all(tensor.dtype == torch.float32 and tensor.data_ptr() in shared for tensor in rounded.parameters())


@kinds
def test_asked_positions_equal_the_full_outputs_rows(way, kind):
    made = in_bfloat16(model(kind))
    z_t, embedding, hidden = batch()
    assert torch.allclose(said(made, z_t, embedding, hidden), said(made, z_t, embedding)[hidden], atol=1e-2)


def test_float32_is_the_model_itself():
    made = model("mdlm")
    assert ARITHMETIC["float32"](made) is made


@pytest.mark.parametrize(("multiplies", "expected"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_auto_is_what_the_device_multiplies_in(monkeypatch, multiplies, expected, device):
    asked = []
    monkeypatch.setattr(reduced, "multiplies_in_bfloat16", lambda device: asked.append(device) or multiplies)
    assert inference_precision("auto", device) == expected
    assert asked == [device]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_named_stays(monkeypatch, precision):
    monkeypatch.setattr(reduced, "multiplies_in_bfloat16", lambda device: pytest.fail("was asked"))
    assert inference_precision(precision, "cpu") == precision


@pytest.mark.parametrize("precision", ["float16", "bfloat16-mixed", ""])
def test_unknown_precision_is_refused_with_the_choices(precision):
    with pytest.raises(ValueError, match="is unknown; choose one of auto, float32, bfloat16"):
        inference_precision(precision, "cpu")


def test_every_precision_has_its_arithmetic():
    assert get_args(Precision) == ("auto", *ARITHMETIC)
