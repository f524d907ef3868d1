"""How much arithmetic training is, and how much a device can do: model FLOPs utilisation (Chowdhery et al. 2022, PaLM).

The model's matrix products are counted as PyTorch dispatches them, on tensors without data, so that every architecture
is counted alike and nothing is computed. What is not a matrix product, and what a run computes twice to save memory,
does not count.

Shapes: B batch, L text length, K pseudo-tokens, D embedding, H hidden, V vocabulary.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from embinv.models.inverter_model import InverterModel

QUEUED = {"cuda": 50}  # products between two waits for a device that works while the next ones are being asked for

# bfloat16 on tensor cores without sparsity, in FLOP/s, from NVIDIA's data sheets; those that quote sparsity are halved.
DATA_SHEET_PEAKS = {
    "A10": 125e12,  # "NVIDIA A10 Tensor Core GPU"
    "A30": 165e12,  # "NVIDIA A30 Tensor Core GPU"
    "A40": 149.7e12,  # "NVIDIA A40 GPU accelerator"
    "A100": 312e12,  # "NVIDIA A100 Tensor Core GPU", every form
    "L4": 121e12,  # "NVIDIA L4 Tensor Core GPU": 242 with sparsity
    "L40": 181.05e12,  # "NVIDIA L40 GPU": 362.1 with sparsity
    "L40S": 362.05e12,  # "NVIDIA L40S GPU"
    "H100 PCIe": 756.5e12,  # "NVIDIA H100 Tensor Core GPU": 1,513 with sparsity
    "H100 NVL": 835.5e12,  # the same sheet: 1,671 with sparsity
    "H100": 989.5e12,  # the same sheet, SXM: 1,979 with sparsity
    "H200 NVL": 835.5e12,  # "NVIDIA H200 Tensor Core GPU": 1,671 with sparsity
    "H200": 989.5e12,  # the same sheet, SXM: 1,979 with sparsity
    "GH200": 989.5e12,  # "NVIDIA GH200 Grace Hopper Superchip": 1,979 with sparsity
    "B200": 2250e12,  # "NVIDIA DGX B200": 36,000 with sparsity for eight
}


def flops_per_sample(model: InverterModel) -> float:
    """FLOPs of one training text: forward and backward through body and head, two for each multiply-add.

    Every weight counts as trained. Blocks that are compiled or make their activations again are counted as they stand.

    Args:
        model: on any device, in any state; it is left as it is.
    """
    counter = FlopCounterMode(display=False)
    with _without_data(model, texts=1) as hidden_states, counter:
        hidden_states().sum().backward()
    weight, bias = model.head()
    head = 3 * 2 * weight.shape[-1] * len(bias) * model.asked_share * model.config.seq_len
    return counter.get_total_flops() + head


def flops_per_pass(model: InverterModel) -> tuple[float, float]:
    """FLOPs of inference: of one text through the body, and of one position through the head.

    A denoiser makes as many such passes as it is told to; a T5 that remembers what it has read makes one in all.

    Args:
        model: on any device, in any state; it is left as it is.
    """
    counter = FlopCounterMode(display=False)
    with _without_data(model, texts=1) as hidden_states, torch.no_grad(), counter:
        hidden_states()
    weight, bias = model.head()
    return counter.get_total_flops(), 2 * weight.shape[-1] * len(bias)


def largest_matmul(model: InverterModel, texts: int) -> tuple[int, int, int]:
    """The (rows, inner, columns) of the largest matrix product in a forward pass of `texts` texts, head included."""
    seen = _Products()
    with _without_data(model, texts) as hidden_states, seen:
        hidden_states()
    weight, bias = model.head()
    asked = max(1, round(texts * model.config.seq_len * model.asked_share))
    return max([*seen.shapes, (asked, weight.shape[-1], len(bias))], key=prod)


@dataclass(frozen=True)
class Peak:
    """What a device can do at most.

    Attributes:
        flops_per_second: multiply-adds count twice.
        source: where that is from, for a log.
    """

    flops_per_second: float
    source: str


def device_peak(device: torch.device, precision: str, shape: tuple[int, int, int]) -> Peak:
    """The peak of a device: its data sheet's for bfloat16 on a known GPU, else what a plain matrix product reaches.

    Args:
        device: one GPU, or the CPU with the threads of this process.
        precision: of training; float32, or one of the bfloat16 kinds.
        shape: (rows, inner, columns) of the product that is measured.
    """
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        known = data_sheet_peak(name)
        if known is not None:
            return Peak(known, f"data sheet of {name}")
    return measured_peak(device, dtype, shape)


def data_sheet_peak(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of the GPU that calls itself `name`; None for an unknown one or a slice of one (MIG)."""
    if re.search(r"\bMIG\b", name):
        return None
    matching = [model for model in DATA_SHEET_PEAKS if re.search(rf"\b{model}\b", name)]
    return DATA_SHEET_PEAKS[max(matching, key=len)] if matching else None


def measured_peak(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int], seconds: float = 0.5, limit: int = 2**22
) -> Peak:
    """The fastest of as many plain matrix products as fit into `seconds`, at least three; on a GPU, of rows of them.

    Args:
        device: where.
        dtype: of both factors.
        shape: (rows, inner, columns); on a CPU, rows are cut so that the result has `limit` entries at most.
        seconds: roughly how long to measure.
        limit: see `shape`.
    """
    rows, inner, columns = shape
    if device.type == "cpu":
        rows = min(rows, max(1, limit // columns))
    first = torch.randn(rows, inner, device=device).to(dtype)
    second = torch.randn(inner, columns, device=device).to(dtype)
    result = torch.empty(rows, columns, device=device, dtype=dtype)
    queued = QUEUED.get(device.type, 1)
    best, began, made = float("inf"), time.perf_counter(), 0
    while made < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        for _ in range(queued):
            torch.mm(first, second, out=result)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best, made = min(best, (time.perf_counter() - start) / queued), made + 1
    kind = str(dtype).removeprefix("torch.")
    source = f"a plain {rows:,} x {inner:,} x {columns:,} product in {kind}"
    return Peak(2 * rows * inner * columns / best, source)


class _Body(nn.Module):
    """The model up to its head, where `functional_call` expects a forward."""

    def __init__(self, model: InverterModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, embedding: Tensor) -> Tensor:
        return self.model.hidden_states(tokens, embedding)


@contextmanager
def _without_data(model: InverterModel, texts: int) -> Iterator[Callable[[], Tensor]]:
    """Runs the body of a model on the meta device, whole, eager and without dropout."""
    body, config, training = _Body(model), model.config, model.training
    weights: dict[str, Tensor] = {
        name: torch.empty_like(weight, device="meta").requires_grad_() for name, weight in body.named_parameters()
    }
    weights |= {name: torch.empty_like(buffer, device="meta") for name, buffer in body.named_buffers()}
    tokens = torch.zeros((texts, model.texts_given * config.seq_len), dtype=torch.int64, device="meta")
    embedding = torch.zeros((texts, model.vectors_given * config.embedding_dim), device="meta")
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"), torch.enable_grad():
            yield lambda: functional_call(body, weights, (tokens, embedding))
    finally:
        model.train(training)


class _Products(TorchDispatchMode):
    """Notes the shape of each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            first, second = args[-2], args[-1]
            self.shapes.append((first.shape[0], first.shape[1], second.shape[1]))
        return func(*args, **(kwargs or {}))
