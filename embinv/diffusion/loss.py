"""The training objective: cross-entropy at the hidden positions, weighted by time.

With weight 1/t it is MDLM's negative evidence lower bound in nats a token (Sahoo et al. 2024, eq. 10), which
validation reports. Training with every hidden token weighted the same aims at the same conditional distributions
with less variance: at equal time it reached a lower bound and recovered more (docs/LOG.md).

Shapes: B batch, L length, M hidden positions in the batch, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from embinv.diffusion import schedule

LOSS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "nelbo": schedule.loss_weight,  # a bound on -log p(x_0 | embedding): every t counts the same
    "uniform": lambda t: torch.full_like(t, 2.0),  # each hidden token counts the same; 2 keeps the scale (E[t] = 1/2)
}


def masked_cross_entropy(log_probability: Tensor, x_0: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Sums weight_b x -log p(x_0) over the hidden positions of each text, per token of B x L.

    With weight 1/t this is an unbiased estimate of the NELBO divided by L.

    Args:
        log_probability: [M, V] at the hidden positions, in row-major order.
        x_0: [B, L] int64 true ids.
        hidden: [B, L] bool with M true entries.
        weight: [B] weight of each text.

    Returns:
        A scalar, float32.
    """
    entropy = F.nll_loss(log_probability, x_0[hidden], reduction="none")  # [M]
    per_position = weight.unsqueeze(1).expand(x_0.shape)[hidden]  # [M]
    return (entropy * per_position).sum() / x_0.numel()
