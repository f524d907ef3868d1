"""embinv/training/flops.py: counted against a closed form, and against what a real training step dispatches."""

import time

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from embinv.models.backbone import BackboneDenoiser
from embinv.models.mdlm import ConditionalMDLM
from embinv.models.settings import BackboneConfig, ModelSettings
from embinv.training import flops
from embinv.training.flops import (
    DATA_SHEET_PEAKS,
    data_sheet_peak,
    device_peak,
    flops_per_sample,
    largest_matmul,
    measured_peak,
)
from tests.backbones import tiny_shape

CPU = torch.device("cpu")


def small(vocabulary=300, dim=48, length=16, **switches):
    torch.manual_seed(0)
    return ConditionalMDLM(ModelSettings(size="tiny", **switches).resolve(vocabulary, dim, length))


def by_hand(config):
    """Multiply-adds of one text, times two, times three for forward and both gradients."""
    c, places = config, config.pseudo_tokens + config.seq_len
    block = places * (4 * c.hidden**2 + 2 * c.hidden * c.ffn) + 2 * places**2 * c.hidden  # maps; scores and mixing
    modulations = (6 * c.layers + 2) * c.hidden**2 if c.adaln else 0  # once a text
    reading = c.embedding_dim * c.hidden if c.adaln else 0
    condition = reading + c.hidden**2 if c.adaln else 0
    pseudo = c.embedding_dim * c.pseudo_tokens * c.hidden
    head = c.seq_len / 2 * c.hidden * c.vocab_size
    # no gradient flows into the embedding itself, from either of its maps
    into_the_embedding = reading + pseudo
    return 6 * (c.layers * block + modulations + condition + pseudo + head) - 2 * into_the_embedding


@pytest.mark.parametrize(
    "switches",
    [{}, {"pseudo_tokens": 3, "rope": False}, {"qk_norm": False, "tied_head": False}, {"layers": 5, "ffn": 100}],
    ids=str,
)
def test_flops_of_a_text_equal_the_closed_form(switches):
    model = small(**switches)
    assert flops_per_sample(model) == pytest.approx(by_hand(model.config), rel=1e-6)


def test_model_without_conditioning_is_counted_without_the_condition():
    model = small(adaln=False, pseudo_tokens=0)
    assert flops_per_sample(model) == pytest.approx(by_hand(model.config), rel=1e-6)


def counted(model, batch, hidden):
    """FLOPs of one text in a real forward and backward pass, with a plain cross-entropy at the hidden positions."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    z_t = torch.full(hidden.shape, 5).masked_fill(hidden, config.mask_id)
    embedding = torch.randn(batch, config.embedding_dim, generator=generator)
    # the attention kernel that a CPU prefers is one that PyTorch's counter does not know
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        (-model(z_t, embedding, hidden)[:, 0].mean()).backward()
    return counter.get_total_flops() / batch


def test_flops_are_those_that_a_training_step_really_does():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand((64, 32), generator=generator) < torch.linspace(0, 1, 64).unsqueeze(1)
    model = small(length=32)
    assert counted(model, 64, hidden) == pytest.approx(flops_per_sample(model), rel=0.02)


@pytest.mark.parametrize("pseudo_tokens", [0, 3])
def test_flops_of_a_pretrained_body_are_those_that_a_training_step_really_does(pseudo_tokens):
    architecture = BackboneConfig(
        vocab_size=300,
        embedding_dim=48,
        seq_len=32,
        adaln=True,
        pseudo_tokens=pseudo_tokens,
        dropout=0.0,
        backbone="tiny",
        transformer=tiny_shape(),
    )
    model, hidden = BackboneDenoiser(architecture), torch.zeros((16, 32), dtype=torch.bool)
    hidden[:, ::2] = True
    assert counted(model, 16, hidden) == pytest.approx(flops_per_sample(model), rel=0.02)


def test_counting_leaves_the_model_as_it_was():
    model = small(dropout=0.5).requires_grad_(False)
    model.checkpoint_activations = True
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        with torch.no_grad():
            assert flops_per_sample(model) == pytest.approx(by_hand(model.config), rel=1e-6)
        assert model.training is mode
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())


def test_model_that_was_never_given_memory_is_counted():
    with torch.device("meta"):
        base = ConditionalMDLM(ModelSettings(size="base").resolve(150_000, 1024, 32))
    assert flops_per_sample(base) == pytest.approx(by_hand(base.config), rel=1e-6)


@pytest.mark.parametrize(
    ("vocabulary", "switches", "expected"),
    [
        (300, {}, (4 * 24, 64, 256)),  # the feed-forward map of texts and pseudo-tokens
        (5000, {}, (4 * 16 // 2, 64, 5000)),  # the head at half of the positions
        (100, {"ffn": 90, "pseudo_tokens": 0}, (4 * 16, 64, 90)),
    ],
)
def test_largest_product_is_that_of_the_head_or_of_a_feed_forward_map(vocabulary, switches, expected):
    rows, inner, columns = largest_matmul(small(vocabulary, **switches), texts=4)
    assert rows * inner * columns == expected[0] * expected[1] * expected[2]
    assert rows == expected[0]


# --- peaks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A40", 149.7e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181.05e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA H100 PCIe", 756.5e12),
        ("NVIDIA H100 NVL", 835.5e12),
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA GH200 480GB", 989.5e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
        ("NVIDIA A10G", None),
        ("Tesla T4", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_data_sheets_are_found_by_the_name_that_a_gpu_gives_itself(name, expected):
    assert data_sheet_peak(name) == expected


def test_peak_of_a_known_gpu_is_its_data_sheets_in_bfloat16_and_measured_otherwise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(flops, "measured_peak", lambda *arguments: arguments)
    gpu, shape = torch.device("cuda"), (8, 8, 8)
    for precision in ("bfloat16", "bfloat16-mixed"):
        peak = device_peak(gpu, precision, shape)
        assert (peak.flops_per_second, peak.source) == (DATA_SHEET_PEAKS["H200"], "data sheet of NVIDIA H200")
    assert device_peak(gpu, "float32", shape) == (gpu, torch.float32, shape)
    assert device_peak(CPU, "bfloat16-mixed", shape) == (CPU, torch.bfloat16, shape)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert device_peak(gpu, "bfloat16", shape) == (gpu, torch.bfloat16, shape)


def test_measured_peak_is_that_of_the_fastest_product(monkeypatch):
    ticks = iter([0.0, 0.0, 1.0, 1.0, 1.25, 1.25, 3.0, 99.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    peak = measured_peak(CPU, torch.float32, (10, 20, 30))
    assert peak.flops_per_second == 2 * 10 * 20 * 30 / 0.25
    assert peak.source == "a plain 10 x 20 x 30 product in float32"


def test_device_that_works_by_itself_is_waited_for_once_in_many_products(monkeypatch):
    """A wait after each product would measure how long a launch and a wait take."""
    clock, busy_until = [0.0], [0.0]
    launch, product, wait = 10.0, 40.0, 100.0  # microseconds

    def multiply(first, second, out):
        clock[0] += launch
        busy_until[0] = max(busy_until[0], clock[0]) + product

    def synchronize(device):
        clock[0] = max(clock[0], busy_until[0]) + wait

    for name in ("randn", "empty"):
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *shape, make=make, device, **more: make(*shape, **more))
    monkeypatch.setattr(torch, "mm", multiply)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    peak = measured_peak(torch.device("cuda"), torch.float32, (10, 20, 30), seconds=1.0)
    assert 2 * 10 * 20 * 30 / peak.flops_per_second == pytest.approx(product, rel=0.1)


def test_measured_peak_takes_about_the_time_it_is_given_and_cuts_rows_on_a_cpu():
    began = time.perf_counter()
    peak = measured_peak(CPU, torch.float32, (10**9, 64, 1000), seconds=0.1, limit=128_000)
    assert time.perf_counter() - began < 5
    assert "128 x 64 x 1,000" in peak.source
    assert 1e8 < peak.flops_per_second < 1e15
