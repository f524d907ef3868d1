"""What every masked denoiser shares: a head at the asked positions, as log-probabilities or as a loss.

And how its blocks are run: with their activations kept or made again, compiled or not.

Shapes: B batch, L text length, S sequence (pseudo-tokens and text), D embedding, H hidden, V vocabulary, M asked
positions.
"""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from embinv.models.head import linear_cross_entropy
from embinv.models.settings import Architecture

C = TypeVar("C", bound=Architecture)


class MaskedDenoiser(nn.Module, ABC, Generic[C]):
    """x_0-prediction from a masked text z_t [B, L] and an embedding [B, D]; a subclass brings the body.

    Attributes:
        config: the complete architecture.
        token_embedding: rows of the V ids and, last, of the mask.
        condition: what AdaLN modulates by, made of the embedding; null without AdaLN, which alone reads it.
        pseudo_tokens: what stands before the text, made of the embedding; null if nothing does.
        blocks: what most of the time and memory goes to.
        head_weight: [V, H], or null where the head is the token embedding.
        head_bias: [V].
        checkpoint_activations: while training, keep only each block's input and run the block again for its gradient:
            about a third more arithmetic for a fraction of the memory.
        rounded_head: the head as a map of its own, for inference in lower precision; null in the model itself.
    """

    config: C
    token_embedding: nn.Embedding
    condition: nn.Sequential | None
    pseudo_tokens: nn.Linear | None
    blocks: nn.ModuleList
    head_weight: nn.Parameter | None
    head_bias: nn.Parameter
    checkpoint_activations: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.rounded_head: nn.Module | None = None

    @abstractmethod
    def hidden_states(self, z_t: Tensor, embedding: Tensor) -> Tensor:
        """Encodes a masked text z_t [B, L] int64 under embedding [B, D]; returns [B, L, H]."""

    def take_embeddings(self, config: C) -> None:
        """Makes the maps by which an embedding enters; a subclass calls it where their place among the weights is."""
        size, hidden = config.embedding_dim, self.token_embedding.embedding_dim
        self.condition = (
            nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) if config.adaln else None
        )
        self.pseudo_tokens = nn.Linear(size, config.pseudo_tokens * hidden) if config.pseudo_tokens else None

    def enter(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor | None]:
        """The text's states [B, L, H] with pseudo-tokens before them [B, S, H], and the condition [B, H]."""
        vector = self.unit_vectors(embedding)  # [B, D]
        condition = None if self.condition is None else F.silu(self.condition(vector))
        if self.pseudo_tokens is not None:
            before = self.pseudo_tokens(vector).view(len(x), -1, x.shape[-1])  # [B, K, H]
            x = torch.cat([before.to(x.dtype), x], dim=1)
        return x, condition

    def head(self) -> tuple[Tensor, Tensor]:
        """The head's weight [V or more, H], perhaps that of the token embedding with the mask's row, and its bias [V].

        Rows from V on are never predicted.
        """
        return (self.token_embedding.weight if self.head_weight is None else self.head_weight), self.head_bias

    def run_block(self, block: nn.Module, x: Tensor, *context: Any) -> Tensor:
        """One block on x [B, S, H], its activations kept or not."""
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, *context, use_reentrant=False)
        return block(x, *context)

    def compile_blocks(self, **options: Any) -> None:
        """Compiles each block in place, so that no weight changes its name; `options` go to `torch.compile`.

        Blocks of one shape share what is compiled; a backbone has up to three kinds. The first batch takes a minute.
        """
        for block in self.blocks:
            block.compile(**options)

    def unit_vectors(self, embedding: Tensor) -> Tensor:
        """Embeddings [B, D] at unit RMS, float32.

        Raises:
            ValueError: D is not the model's.
        """
        require_dim(embedding, self.config.embedding_dim)
        return scale_to_unit_rms(embedding)

    def logits(self, hidden: Tensor) -> Tensor:
        """Applies the head to hidden states [..., H]; returns [..., V]."""
        if self.rounded_head is not None:
            return self.rounded_head(hidden)
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
            return log_softmax(self.logits(hidden).float())
        return linear_cross_entropy(hidden, *self.head(), targets, weights)


def require_dim(embedding: Tensor, dim: int) -> None:
    """Refuses embeddings [B, D] of another length than the model's.

    Raises:
        ValueError: the message has both lengths.
    """
    if embedding.shape[-1] != dim:
        raise ValueError(f"embeddings have {embedding.shape[-1]} dimensions, the model takes {dim}")


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities [..., V] of logits [..., V]; takes the logits' place where a CPU takes no gradient.

    There a second tensor of this size costs several times what is computed: its pages are new each time.
    """
    if logits.device.type != "cpu" or torch.is_grad_enabled():
        return F.log_softmax(logits, dim=-1)
    return torch.log_softmax(logits, dim=-1, out=logits)


def scale_to_unit_rms(embedding: Tensor) -> Tensor:
    """Scales each vector [B, D] to root mean square 1; a zero vector stays zero (the baseline's input)."""
    tiny = torch.finfo(torch.float32).tiny
    vector = embedding.float()
    vector = vector / vector.abs().amax(dim=-1, keepdim=True).clamp_min(tiny)  # so that no square over- or underflows
    return vector / vector.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(tiny)
