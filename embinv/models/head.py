"""Cross-entropy of a linear head at many positions, without ever holding the logits of all of them.

At 152,000 tokens the logits of one batch outweigh the whole model. Here a few rows of them are made at a time, and
gradients are taken on the spot, since the weight of every position is known (the idea of Liger's fused linear
cross-entropy, Hsu et al. 2024, arXiv 2410.10989). On a GPU, in bfloat16, the kernels of cut-cross-entropy (Wijmans
et al. 2024, arXiv 2411.09009) do it without leaving the chip, where they are installed (`pip install embinv[gpu]`).

Shapes: M positions, H hidden, V vocabulary, C rows of one chunk.
"""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

CHUNK_LOGITS = 2**22  # logits at once: they stay in a CPU's cache, or nearly
CHUNK_ROWS = 256  # rows at least: fewer would read the head's weights more often than multiply with them


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores a linear head at M positions.

    Args:
        hidden: [M, H] states before the head.
        weight: [V or more, H]; rows from V on belong to ids that are never predicted.
        bias: [V].
        targets: [M] int64 true ids.
        weights: [M] float32, what each position counts; no gradient flows into them.

    Returns:
        The weighted sum of cross-entropies, a float32 scalar, whose gradient can be taken once; and each position's
        own, [M] float32 without gradient.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    kernel = _kernel() if device == "cuda" and dtype == torch.bfloat16 and len(hidden) else None
    if kernel is not None:
        return _by_kernel(kernel, hidden, weight, bias, targets, weights.detach(), dtype)
    wants_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in (hidden, weight, bias))
    return _ChunkedCrossEntropy.apply(  # type: ignore[return-value]
        hidden, weight, bias, targets, weights.detach(), dtype, wants_gradient
    )


@functools.cache
def _kernel() -> Callable[..., Tensor] | None:
    """`linear_cross_entropy` of cut-cross-entropy, if a version with biases is installed."""
    try:
        from cut_cross_entropy import linear_cross_entropy as kernel  # type: ignore[import-not-found]
    except ImportError:
        return None
    if "bias" not in inspect.signature(kernel).parameters:
        log.warning(
            "this cut-cross-entropy knows no bias and is not used; `pip install embinv[gpu]` brings one that does"
        )
        return None
    return kernel


def _by_kernel(
    kernel: Callable[..., Tensor],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    weights: Tensor,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """As `linear_cross_entropy`; sums in float32 and every gradient of the head, as its authors say for pretraining."""
    with torch.autocast(hidden.device.type, enabled=False):
        entropies = kernel(
            hidden.to(dtype),
            weight[: len(bias)].to(dtype),
            targets,
            bias=bias.to(dtype),
            reduction="none",
            impl="cce_kahan_full_c",
        ).float()
        return (entropies * weights.float()).sum(), entropies.detach()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward and gradient in one pass over chunks of rows; sums over rows and over the vocabulary in float32.

    In bfloat16 every product is rounded to it: the logits, before the bias is added and the softmax taken in float32,
    and what a chunk adds to the gradients of states and head, from slopes that are rounded too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        weights: Tensor,
        dtype: torch.dtype,
        wants_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        vocabulary = len(bias)
        wide = torch.promote_types(dtype, torch.float32)  # of sums: float32, or float64 for float64
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight[:vocabulary].to(dtype)  # [V, H]
            states, counts = hidden.to(dtype), weights.to(wide).unsqueeze(1)  # [M, H], [M, 1]
            entropies = torch.empty(len(hidden), dtype=wide, device=hidden.device)
            by_hidden = torch.empty_like(hidden) if wants_gradient else None
            by_weight = torch.zeros_like(weight, dtype=wide) if wants_gradient else None
            by_bias = torch.zeros_like(bias, dtype=wide) if wants_gradient else None
            chunk = min(max(CHUNK_ROWS, CHUNK_LOGITS // vocabulary), max(len(hidden), 1))
            room = torch.empty((chunk, vocabulary), dtype=wide, device=hidden.device)  # of every chunk's logits
            for start in range(0, len(hidden), chunk):
                rows = slice(start, start + chunk)
                logits = room[: len(states[rows])]  # [C, V]
                if dtype == wide:
                    torch.addmm(bias.to(wide), states[rows], head.T, out=logits)
                else:
                    logits.copy_(states[rows] @ head.T).add_(bias)
                target = targets[rows].unsqueeze(1)  # [C, 1]
                top, said = logits.amax(dim=1, keepdim=True), logits.gather(1, target)  # [C, 1]
                mass = logits.sub_(top).exp_().sum(dim=1, keepdim=True)  # [C, 1]
                entropies[rows] = (mass.log() + top - said).squeeze(1)
                if by_hidden is None or by_weight is None or by_bias is None:
                    continue
                slope = logits.mul_(counts[rows] / mass)  # softmax x weight
                slope.scatter_add_(1, target, -counts[rows])
                by_bias += slope.sum(dim=0)
                slope = slope.to(dtype)
                by_hidden[rows] = (slope @ head).to(hidden.dtype)
                if dtype == wide:
                    by_weight[:vocabulary].addmm_(slope.T, states[rows])
                else:
                    by_weight[:vocabulary] += slope.T @ states[rows]
        if by_hidden is not None:
            ctx.save_for_backward(by_hidden, by_weight, by_bias)
            ctx.dtypes = weight.dtype, bias.dtype
        ctx.mark_non_differentiable(entropies)
        return (entropies * weights).sum(), entropies

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden, by_weight, by_bias = ctx.saved_tensors
        slope, (weight_dtype, bias_dtype) = slopes[0], ctx.dtypes
        return (
            by_hidden * slope,
            by_weight.mul_(slope).to(weight_dtype),
            by_bias.mul_(slope).to(bias_dtype),
            None,
            None,
            None,
            None,
        )
