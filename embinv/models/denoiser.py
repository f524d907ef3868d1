"""What every masked denoiser shares: a head at the asked positions, as log-probabilities or as a loss.

Shapes: B batch, L text length, D embedding, H hidden, V vocabulary, M asked positions.
"""

from abc import ABC, abstractmethod
from typing import overload

from torch import Tensor, nn
from torch.nn import functional as F

from embinv.models.head import linear_cross_entropy
from embinv.models.settings import MDLMConfig


class MaskedDenoiser(nn.Module, ABC):
    """x_0-prediction from a masked text z_t [B, L] and an embedding [B, D]; a subclass brings the body."""

    config: MDLMConfig

    @abstractmethod
    def hidden_states(self, z_t: Tensor, embedding: Tensor) -> Tensor:
        """Encodes a masked text z_t [B, L] int64 under embedding [B, D]; returns [B, L, H]."""

    @abstractmethod
    def head(self) -> tuple[Tensor, Tensor]:
        """The head's weight [V or more, H] and bias [V]; rows from V on are never predicted."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Applies the head to hidden states [..., H]; returns [..., V]."""
        weight, bias = self.head()
        return F.linear(hidden, weight[: len(bias)], bias)

    @overload
    def forward(self, z_t: Tensor, embedding: Tensor, positions: Tensor | None = None) -> Tensor: ...

    @overload
    def forward(
        self, z_t: Tensor, embedding: Tensor, positions: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        z_t: Tensor,
        embedding: Tensor,
        positions: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Log-probabilities of x_0 at the asked positions; or, given the truth, the loss there.

        Args:
            z_t: [B, L] int64 with `mask_id` where the text is hidden.
            embedding: [B, D] float, at any scale.
            positions: [B, L] bool, where to predict; null means everywhere.
            targets: [M] int64, true ids at the M asked positions in row-major order.
            weights: [M] float, what each of them counts.

        Returns:
            [M, V] float32 log-probabilities in row-major order of the asked positions, or [B, L, V]. With targets, the
            weighted sum of cross-entropies and [M] cross-entropies without gradient, see `linear_cross_entropy`.
        """
        hidden = self.hidden_states(z_t, embedding)
        if positions is not None:
            hidden = hidden[positions]  # [M, H]
        if targets is None or weights is None:
            return F.log_softmax(self.logits(hidden).float(), dim=-1)
        return linear_cross_entropy(hidden, *self.head(), targets, weights)
