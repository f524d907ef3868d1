"""A denoiser whose products are made in bfloat16, for inference: each matrix is rounded once, and not at each pass.

It computes what `torch.autocast` computes, which under `torch.inference_mode` would round every matrix at every pass.
Weights and biases of all `nn.Linear` and of the head are bfloat16, and what they are multiplied with is rounded to it.
Token embedding, norms, the sum that branches are added to and log-probabilities stay float32, and softmaxes are summed
in it. A head that is the token embedding gets a matrix of its own. Training's arithmetic is chosen in
embinv/training/precision.py.

Shapes: V vocabulary, H hidden.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embinv.encoders.arithmetic import multiplies_in_bfloat16
from embinv.models.denoiser import MaskedDenoiser

Precision = Literal["auto", "float32", "bfloat16"]
"""What an inverter computes in; `auto`: bfloat16 where the hardware multiplies in it."""

M = TypeVar("M", bound=nn.Module)


class ReducedLinear(nn.Linear):
    """A bfloat16 copy of a linear map, that rounds its input and gives bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight = _rounded(linear.weight)
        if linear.bias is not None:
            self.bias = _rounded(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class WideLayerNorm(nn.LayerNorm):
    """A LayerNorm that shares its weights with another one and gives float32, whatever it gets."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape, norm.eps, norm.elementwise_affine, norm.bias is not None, device="meta")
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def in_bfloat16(model: M) -> M:
    """A model whose products are bfloat16; it shares with the given one, which stays as it is, all that is not rounded.

    For inference alone: what is rounded takes no gradient.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    reduced = copy.deepcopy(model, shared)
    for name, module in list(reduced.named_modules()):
        if isinstance(module, nn.Linear):
            reduced.set_submodule(name, ReducedLinear(module))
        elif isinstance(module, nn.LayerNorm):
            reduced.set_submodule(name, WideLayerNorm(module))
        elif isinstance(module, MaskedDenoiser):
            weight, bias = module.head()
            module.head_weight, module.head_bias = _rounded(weight[: len(bias)]), _rounded(bias)
    return reduced


def _rounded(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().to(torch.bfloat16), requires_grad=False)


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
