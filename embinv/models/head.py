"""Cross-entropy of a linear head at many positions, without ever holding the logits of all of them.

At 152,000 tokens the logits of one batch outweigh the whole model. Here a few rows of them are made at a time, and
gradients are taken on the spot, since the weight of every position is known (the idea of Liger's fused linear
cross-entropy, Hsu et al. 2024, arXiv 2410.10989). On a GPU the kernels of cut-cross-entropy (Wijmans et al. 2024,
arXiv 2411.09009) do it without leaving the chip, where they are installed.

Shapes: M positions, H hidden, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

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
        The weighted sum of cross-entropies, a float32 scalar; and each position's own, [M] float32 without gradient.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return _ChunkedCrossEntropy.apply(hidden, weight, bias, targets, weights.detach(), dtype)  # type: ignore[return-value]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward and gradient in one pass over chunks of rows; logits, sums and gradients of the head in float32."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        vocabulary = len(bias)
        with torch.autocast(hidden.device.type, enabled=False):
            head = weight[:vocabulary].to(dtype)  # [V, H]
            states = hidden.to(dtype)
            entropies = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
            wants_gradient = any(ctx.needs_input_grad[:3])
            by_hidden = torch.empty_like(hidden) if wants_gradient else None
            by_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_gradient else None
            by_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_gradient else None
            chunk = max(CHUNK_ROWS, CHUNK_LOGITS // vocabulary)
            for start in range(0, len(hidden), chunk):
                rows = slice(start, start + chunk)
                logits = (states[rows] @ head.T).float().add_(bias.float())  # [C, V]
                target = targets[rows].unsqueeze(1)
                total = logits.logsumexp(dim=1, keepdim=True)
                entropies[rows] = (total - logits.gather(1, target)).squeeze(1)
                if by_hidden is None or by_weight is None or by_bias is None:
                    continue
                counted = weights[rows].float().unsqueeze(1)
                slope = logits.sub_(total).exp_().mul_(counted)  # softmax x weight
                slope.scatter_add_(1, target, -counted)
                by_bias += slope.sum(dim=0)
                slope = slope.to(dtype)
                by_hidden[rows] = slope @ head
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
        )
