"""What every masked denoiser shares: how the embedding enters, and how its blocks are run.

Shapes: B batch, L text length, S sequence (pseudo-tokens and text), D embedding, H hidden, V vocabulary.
"""

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from embinv.models.inverter_model import InverterModel, require_dim, scale_to_unit_rms
from embinv.models.settings import Architecture

C = TypeVar("C", bound=Architecture)


class MaskedDenoiser(InverterModel[C]):
    """x_0-prediction from a masked text z_t [B, L] and an embedding [B, D]; a subclass brings the body.

    Attributes:
        token_embedding: rows of the V ids and, last, of the mask.
        condition: what AdaLN modulates by, made of the embedding; null without AdaLN, which alone reads it.
        pseudo_tokens: what stands before the text, made of the embedding; null if nothing does.
        blocks: what most of the time and memory goes to.
        head_weight: [V, H], or null where the head is the token embedding.
        head_bias: [V].
        rounded_head: the head as a map of its own, for inference in lower precision; null in the model itself.
    """

    asked_share: ClassVar = 0.5  # the mean of t
    vectors_read: ClassVar[int] = 1  # of D numbers each, that `unit_vectors` gives
    token_embedding: nn.Embedding
    condition: nn.Sequential | None
    pseudo_tokens: nn.Linear | None
    blocks: nn.ModuleList
    head_weight: nn.Parameter | None
    head_bias: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self.rounded_head: nn.Module | None = None

    def take_embeddings(self, config: C) -> None:
        """Makes the maps by which an embedding enters; a subclass calls it where their place among the weights is."""
        size, hidden = self.vectors_read * config.embedding_dim, self.token_embedding.embedding_dim
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
        return (self.token_embedding.weight if self.head_weight is None else self.head_weight), self.head_bias

    def run_block(self, block: nn.Module, x: Tensor, *context: Any) -> Tensor:
        """One block on x [B, S, H], its activations kept or not."""
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, *context, use_reentrant=False)
        return block(x, *context)

    def compile_blocks(self, **options: Any) -> None:
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
        return super().logits(hidden) if self.rounded_head is None else self.rounded_head(hidden)
