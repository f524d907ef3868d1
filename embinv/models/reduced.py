"""A denoiser whose products are made in bfloat16, for inference: each matrix is rounded once, and not at each pass.

It computes what `torch.autocast` computes, which under `torch.inference_mode` would round every matrix at every pass.
Weights and biases of all `nn.Linear` and of the head are bfloat16, and what they are multiplied with is rounded to it.
Token embedding, norms, the sum that branches are added to and log-probabilities stay float32, and softmaxes are summed
in it. How a CPU does it is in packed.py. Training's arithmetic is chosen in embinv/training/precision.py.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embinv.encoders.arithmetic import multiplies_in_bfloat16
from embinv.models.adaln import ConditionedBlock
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.packed import PackedBlock, PackedLinear, keep_freed_memory, pack, packs

Precision = Literal["auto", "float32", "bfloat16"]
"""What an inverter computes in; `auto`: bfloat16 where the hardware multiplies in it."""

M = TypeVar("M", bound=nn.Module)


class RoundedLinear(nn.Module):
    """A linear map in bfloat16, for input of any dtype and on any device."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().to(torch.bfloat16), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.bfloat16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class WideLayerNorm(nn.Module):
    """A LayerNorm in float32, for input of any dtype."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.float())


REPLACEMENTS: dict[bool, dict[type[nn.Module], Callable[[Any], nn.Module]]] = {
    True: {nn.Linear: pack, nn.LayerNorm: WideLayerNorm, ConditionedBlock: PackedBlock},
    False: {nn.Linear: lambda linear: RoundedLinear(linear.weight, linear.bias), nn.LayerNorm: WideLayerNorm},
}
"""Whether matrices are packed -> what takes the place of a module."""


def in_bfloat16(model: M) -> M:
    """A model whose products are bfloat16; it shares with the given one, which stays as it is, all that is not rounded.

    For inference alone: what is rounded takes no gradient, and there is no dropout.
    """
    packed = packs(next(model.parameters()).device)
    if packed:
        keep_freed_memory()
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    reduced = copy.deepcopy(model, shared)
    _replace(reduced, REPLACEMENTS[packed])
    if isinstance(reduced, MaskedDenoiser):
        weight, bias = reduced.head()
        reduced.rounded_head = (PackedLinear if packed else RoundedLinear)(weight[: len(bias)], bias)
    return reduced


def _replace(module: nn.Module, replacements: dict[type[nn.Module], Callable[[Any], nn.Module]]) -> None:
    for name, child in module.named_children():
        if type(child) in replacements:
            setattr(module, name, replacements[type(child)](child))
        else:
            _replace(child, replacements)


ARITHMETIC: dict[str, Callable[[Any], Any]] = {"float32": lambda model: model, "bfloat16": in_bfloat16}
"""A float32 model -> the one that computes in this precision."""


def inference_precision(precision: str, device: str) -> str:
    """Turns `auto` into `bfloat16` or `float32` for a device.

    Raises:
        ValueError: another name than those of `Precision`.
    """
    if precision == "auto":
        return "bfloat16" if multiplies_in_bfloat16(device) else "float32"
    if precision not in ARITHMETIC:
        raise ValueError(f"precision {precision!r} is unknown; choose one of auto, {', '.join(ARITHMETIC)}")
    return precision
