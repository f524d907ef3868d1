"""The training objective: cross-entropy at the hidden positions, weighted by time.

With weight 1/t it is MDLM's negative evidence lower bound in nats a token (Sahoo et al. 2024, eq. 10), which
validation reports. Training with every hidden token weighted the same aims at the same conditional distributions
with less variance: at equal time it reached a lower bound and recovered more (docs/LOG.md).

Shapes: B batch, L length, M hidden positions in the batch, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from embinv.diffusion import schedule

CLIP = 5.0
LOSS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "nelbo": schedule.loss_weight,  # a bound on -log p(x_0 | embedding): every t counts the same
    # 1/t, but for texts that are nearly whole; the divisor keeps the scale (E[t min(1/t, c)] = 1 - 1/(2c))
    "clipped": lambda t: schedule.loss_weight(t).clamp(max=CLIP) / (1 - 0.5 / CLIP),
    "uniform": lambda t: torch.full_like(t, 2.0),  # each hidden token counts the same; 2 keeps the scale (E[t] = 1/2)
}


def token_weights(weight: Tensor, hidden: Tensor) -> Tensor:
    """What each hidden token counts, so that the weighted sum of cross-entropies is the loss per token of B x L.

    With weight 1/t that sum is an unbiased estimate of the NELBO divided by L.

    Args:
        weight: [B] weight of each text.
        hidden: [B, L] bool with M true entries.

    Returns:
        [M] float32, in row-major order.
    """
    return (weight / hidden.numel()).unsqueeze(1).expand(hidden.shape)[hidden]
