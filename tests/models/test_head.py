import logging
import subprocess
import sys
import types

import pytest
import torch
from torch.nn import functional as F

from embinv.models import head
from embinv.models.head import linear_cross_entropy

HIDDEN, VOCABULARY = 16, 37


def inputs(rows, extra=0, dtype=torch.float32, seed=0):
    """hidden [M, H], weight [V + extra, H], bias [V], targets [M], weights [M]."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    hidden, weight, bias = noise(rows, HIDDEN), noise(VOCABULARY + extra, HIDDEN), noise(VOCABULARY)
    targets = torch.randint(VOCABULARY, (rows,), generator=generator)
    weights = torch.rand(rows, generator=generator) * 3
    return [part.requires_grad_() for part in (hidden, weight, bias)], targets, weights


def dense(hidden, weight, bias, targets, weights):
    """All logits at once: what the head is measured against."""
    entropies = F.cross_entropy(F.linear(hidden, weight[: len(bias)], bias).float(), targets, reduction="none")
    return (entropies * weights).sum(), entropies.detach()


def results(function, parts, targets, weights):
    """The loss, each position's entropy, and the gradients of twice the loss."""
    loss, entropies = function(*parts, targets, weights)
    gradients = torch.autograd.grad(2 * loss, parts)
    return [loss, entropies, *gradients]


@pytest.fixture(params=[1, 2, 5, 16, 100])
def chunk(request, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_ROWS", request.param)
    monkeypatch.setattr(head, "CHUNK_LOGITS", 1)
    return request.param


def test_loss_and_gradients_equal_the_dense_ones_for_any_chunk(chunk):
    given = inputs(16)
    for found, expected in zip(results(linear_cross_entropy, *given), results(dense, *given), strict=True):
        assert found.dtype == expected.dtype
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_loss_and_gradients_under_bfloat16_autocast_equal_the_dense_ones_to_its_precision(chunk):
    given = inputs(16)
    exact = results(dense, *given)
    with torch.autocast("cpu", torch.bfloat16):
        found, usual = results(linear_cross_entropy, *given), results(dense, *given)
    for ours, theirs, truth in zip(found, usual, exact, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - truth).norm() < 0.02 * truth.norm()
        assert (ours - truth).norm() < 1.5 * (theirs - truth).norm() + 1e-6  # no worse than what it stands for


def test_weights_in_bfloat16_get_gradients_in_bfloat16(chunk):
    given = inputs(16, dtype=torch.bfloat16)
    for found, expected in zip(results(linear_cross_entropy, *given), results(dense, *given), strict=True):
        assert found.dtype == expected.dtype
        assert (found.float() - expected.float()).norm() < 0.03 * expected.float().norm()


@pytest.mark.parametrize("seed", range(3))
def test_gradients_equal_finite_differences(chunk, seed):
    parts, targets, weights = inputs(6, extra=1, dtype=torch.float64, seed=seed)
    gradients = torch.autograd.grad(linear_cross_entropy(*parts, targets, weights)[0], parts)
    generator = torch.Generator().manual_seed(seed)
    for index, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        ahead, behind = list(parts), list(parts)
        ahead[index], behind[index] = parts[index] + 1e-5 * direction, parts[index] - 1e-5 * direction
        difference = (
            linear_cross_entropy(*ahead, targets, weights)[0] - linear_cross_entropy(*behind, targets, weights)[0]
        )
        slope = difference / 2e-5
        assert torch.allclose(slope, (gradient * direction).sum(), rtol=1e-7)


def test_rows_from_the_vocabularys_size_on_are_never_predicted_and_never_learn():
    (hidden, weight, bias), targets, weights = inputs(16, extra=2)
    loss, entropies, _, by_weight, _ = results(linear_cross_entropy, (hidden, weight, bias), targets, weights)
    with torch.no_grad():
        weight[VOCABULARY:] += 100
    again = linear_cross_entropy(hidden, weight, bias, targets, weights)
    assert torch.equal(again[0], loss)
    assert torch.equal(again[1], entropies)
    assert by_weight.shape == weight.shape
    assert by_weight[:VOCABULARY].abs().sum() > 0
    assert not by_weight[VOCABULARY:].any()


def test_no_position_gives_a_loss_and_gradients_of_zero():
    loss, entropies, *gradients = results(linear_cross_entropy, *inputs(0))
    assert loss.item() == 0.0
    assert entropies.shape == (0,)
    assert [gradient.shape for gradient in gradients] == [(0, HIDDEN), (VOCABULARY, HIDDEN), (VOCABULARY,)]
    assert not any(gradient.any() for gradient in gradients)


def test_position_that_counts_nothing_moves_nothing_and_still_tells_its_entropy():
    (hidden, weight, bias), targets, weights = inputs(16)
    weights[[0, 5]] = 0.0
    kept = weights > 0
    loss, entropies, by_hidden, *of_the_head = results(linear_cross_entropy, (hidden, weight, bias), targets, weights)
    assert not by_hidden[~kept].any()
    assert torch.allclose(entropies, dense(hidden, weight, bias, targets, weights)[1], atol=1e-5)
    without = (hidden.detach()[kept].requires_grad_(), weight, bias)
    expected = results(linear_cross_entropy, without, targets[kept], weights[kept])
    assert torch.allclose(loss, expected[0], rtol=1e-5)
    for found, right in zip(of_the_head, expected[3:], strict=True):
        assert torch.allclose(found, right, atol=1e-5)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_huge_logits_neither_overflow_nor_lose_the_loss(scale):
    (hidden, weight, bias), targets, weights = inputs(8)
    with torch.no_grad():
        bias += scale  # of every token: changes nothing
        hidden *= 1e3
    for found, expected in zip(
        results(linear_cross_entropy, (hidden, weight, bias), targets, weights),
        results(dense, (hidden, weight, bias), targets, weights),
        strict=True,
    ):
        assert found.isfinite().all()
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_logit_that_is_no_number_makes_the_loss_no_number():
    (hidden, weight, bias), targets, weights = inputs(4)
    with torch.no_grad():
        hidden[2] = torch.nan
    loss, entropies = linear_cross_entropy(hidden, weight, bias, targets, weights)
    assert loss.isnan()
    assert entropies.isnan().tolist() == [False, False, True, False]


def test_no_gradient_flows_through_entropies_or_weights():
    parts, targets, weights = inputs(4)
    loss, entropies = linear_cross_entropy(*parts, targets, weights.requires_grad_())
    assert not entropies.requires_grad
    assert torch.autograd.grad(loss, weights, allow_unused=True) == (None,)


class Allocations(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the number of elements of every tensor that is made."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.sizes += [part.numel() for part in (made if isinstance(made, tuple) else (made,)) if torch.is_tensor(part)]
        return made


@pytest.mark.parametrize("without", ["grad mode", "need"])
def test_without_a_gradient_to_come_no_buffer_for_one_is_made(without, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_ROWS", 1)
    monkeypatch.setattr(head, "CHUNK_LOGITS", 1)
    parts, targets, weights = inputs(8, extra=2)
    if without == "need":
        parts = [part.detach() for part in parts]
    expected = dense(*parts, targets, weights)
    with torch.set_grad_enabled(without == "need"), Allocations() as allocations:
        loss, entropies = linear_cross_entropy(*parts, targets, weights)
    buffer = (VOCABULARY + 2) * HIDDEN  # of the head's gradient
    assert allocations.sizes.count(buffer) == 0
    assert torch.allclose(loss, expected[0], rtol=1e-5)
    assert torch.allclose(entropies, expected[1], atol=1e-5)
    with Allocations() as allocations:
        linear_cross_entropy(*[part.detach().requires_grad_() for part in parts], targets, weights)
    assert allocations.sizes.count(buffer) > 0  # and this is how one would be seen


PEAK = """
import re, torch
from embinv.models.head import linear_cross_entropy
torch.set_num_threads(1)
positions, hidden, vocabulary = 2048, 64, 152_000

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

def step(rows):
    states, weight = torch.randn(rows, hidden).requires_grad_(), torch.randn(vocabulary, hidden).requires_grad_()
    bias = torch.zeros(vocabulary).requires_grad_()
    targets, weights = torch.randint(vocabulary, (rows,)), torch.ones(rows)
    linear_cross_entropy(states, weight, bias, targets, weights)[0].backward()
    assert states.grad.abs().sum() > 0

step(1)  # weights, gradients of the head, and the libraries' own memory are not what is measured
before = peak()
step(positions)
print((peak() - before) / (positions * vocabulary * 4))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_step_at_152000_tokens_holds_a_small_share_of_the_dense_logits():
    run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    share = float(run.stdout)  # of the logits alone; the dense head holds them twice at least, with their gradient
    assert 0 < share < 0.2


def test_without_a_gpu_no_kernel_is_asked_for(monkeypatch):
    monkeypatch.setattr(head, "_kernel", lambda: pytest.fail("asked for"))
    with torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(*inputs(4)[0], *inputs(4)[1:])


@pytest.fixture
def installed(monkeypatch):
    """Puts a function in the place of cut-cross-entropy's."""

    def install(function):
        module = types.ModuleType("cut_cross_entropy")
        module.linear_cross_entropy = function
        monkeypatch.setitem(sys.modules, "cut_cross_entropy", module)
        head._kernel.cache_clear()

    yield install
    head._kernel.cache_clear()


def test_kernel_is_absent_where_the_package_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", None)
    head._kernel.cache_clear()
    assert head._kernel() is None
    head._kernel.cache_clear()


def test_kernel_that_knows_no_bias_stays_unused_and_is_told_of_once(installed, caplog):
    def old(e, c, targets, ignore_index=-100, softcap=None, reduction="mean", shift=False):
        raise AssertionError("called")

    installed(old)
    with caplog.at_level(logging.WARNING):
        assert [head._kernel(), head._kernel()] == [None, None]
    assert len(caplog.records) == 1
    assert "embinv[gpu]" in caplog.text


def test_kernel_gets_bfloat16_and_gives_the_weighted_sum_and_its_gradients(installed):
    seen = {}

    def kernel(e, c, targets, bias=None, reduction="mean", impl="cce"):
        seen.update(dtypes=(e.dtype, c.dtype, bias.dtype), rows=len(c), reduction=reduction, impl=impl)
        return F.cross_entropy(F.linear(e, c, bias).float(), targets, reduction=reduction)

    installed(kernel)
    parts, targets, weights = inputs(16, extra=1)

    def through_the_kernel(*given):
        return head._by_kernel(head._kernel(), *given, torch.bfloat16)

    found, exact = results(through_the_kernel, parts, targets, weights), results(dense, parts, targets, weights)
    assert seen["dtypes"] == (torch.bfloat16,) * 3
    assert (seen["rows"], seen["reduction"], seen["impl"]) == (VOCABULARY, "none", "cce_kahan_full_c")
    for ours, truth in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - truth).norm() < 0.02 * truth.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [0, 3, 700])
def test_gpu_gives_what_the_dense_head_gives(rows):
    parts, targets, weights = inputs(rows, extra=1)
    parts = [part.detach().cuda().requires_grad_() for part in parts]
    targets, weights = targets.cuda(), weights.cuda()
    exact = results(dense, parts, targets, weights)
    with torch.autocast("cuda", torch.bfloat16):
        found = results(linear_cross_entropy, parts, targets, weights)
    for ours, truth in zip(found, exact, strict=True):
        assert (ours - truth).norm() <= 0.02 * truth.norm()
