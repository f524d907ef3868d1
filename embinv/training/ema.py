"""An exponential moving average of the weights, in float32 whatever the weights are kept in.

In bfloat16 a step of 1e-4 x difference rounds away and the average never moves. The average is a model of its own,
so that validation and checkpoints use it as it stands.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from embinv.models.inverter_model import InverterModel


class EMA:
    """Keeps the average beside the trained model.

    Args:
        model: the model at its start; it is copied.
        decay: weight of the past at most.
        share: the average spans this share of the updates so far, so that a longer run averages over longer.
    """

    def __init__(self, model: InverterModel[Any], decay: float, share: float = 0.1) -> None:
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.decay, self.share = decay, share
        self.updates = 0
        self._average = dict(self.model.named_parameters())

    @torch.no_grad()
    def update(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Moves the average towards the weights; the start is forgotten."""
        horizon = 1.0 + self.share * self.updates
        decay = min(self.decay, 1.0 - 1.0 / horizon)
        for name, value in weights:
            self._average[name].lerp_(value.detach().float(), 1.0 - decay)
        self.updates += 1
