"""What every trained model shares: states of a text under an embedding, and a head that is asked at some positions.

And how its blocks are run: with their activations kept or made again, compiled or not.

Shapes: B batch, L text length, D embedding, H hidden, V vocabulary, M asked positions.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embinv.models.head import linear_cross_entropy
from embinv.models.settings import Architecture
from embinv.models.t5_settings import T5InverterConfig

C = TypeVar("C", bound=Architecture | T5InverterConfig)


class InverterModel(nn.Module, ABC, Generic[C]):
    """Predicts tokens of a text from its embedding [B, D] and from what is known of the text [B, L].

    Attributes:
        config: the complete architecture.
        asked_share: of the positions, at which a training step asks the head, in the mean.
        vectors_given: of D numbers each, in a row of what stands for the embedding: a corrector is given two.
        texts_given: of L tokens each, in a row of what is known of a text.
        checkpoint_activations: while training, keep only each block's input and run the block again for its gradient:
            about a third more arithmetic for a fraction of the memory.
    """

    config: C
    asked_share: ClassVar[float]
    vectors_given: ClassVar[int] = 1
    texts_given: ClassVar[int] = 1
    checkpoint_activations: bool = False

    @abstractmethod
    def hidden_states(self, tokens: Tensor, embedding: Tensor, /) -> Tensor:
        """Encodes what is known of a text [B, L] int64 under embedding [B, D]; returns [B, L, H]."""

    @abstractmethod
    def head(self) -> tuple[Tensor, Tensor]:
        """The head's weight [V or more, H], perhaps that of the token embedding, and its bias [V].

        Rows from V on are never predicted.
        """

    @abstractmethod
    def compile_blocks(self, **options: Any) -> None:
        """Compiles each block in place, so that no weight changes its name; `options` go to `torch.compile`.

        Blocks of one shape share what is compiled. The first batch takes a minute.
        """

    def recompute(self, on: bool) -> None:
        """Sets `checkpoint_activations`."""
        self.checkpoint_activations = on

    def logits(self, hidden: Tensor) -> Tensor:
        """Applies the head to hidden states [..., H]; returns [..., V]."""
        weight, bias = self.head()
        return F.linear(hidden, weight[: len(bias)], bias)

    @overload
    def forward(self, tokens: Tensor, embedding: Tensor, positions: Tensor | None = None) -> Tensor: ...

    @overload
    def forward(
        self, tokens: Tensor, embedding: Tensor, positions: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        tokens: Tensor,
        embedding: Tensor,
        positions: Tensor | None = None,
        targets: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Log-probabilities of the text at the asked positions; or, given the truth, the loss there.

        Args:
            tokens: [B, L] int64. To a denoiser, the text with `mask_id` where it is hidden; to a T5, the text itself,
                of which each position sees those before it (teacher forcing).
            embedding: [B, D] float, at any scale.
            positions: [B, L] bool, where to predict; null means everywhere.
            targets: [M] int64, true ids at the M asked positions in row-major order.
            weights: [M] float, what each of them counts.

        Returns:
            [M, V] float32 log-probabilities in row-major order of the asked positions, or [B, L, V]. With targets, the
            weighted sum of cross-entropies and [M] cross-entropies without gradient, see `linear_cross_entropy`.
        """
        hidden = self.hidden_states(tokens, embedding)
        if positions is not None:
            hidden = hidden[positions]  # [M, H]
        if targets is None or weights is None:
            return log_softmax(self.logits(hidden).float())
        return linear_cross_entropy(hidden, *self.head(), targets, weights)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Counts a model's parameters: `total`, and `non_embedding` without token embedding, head and its bias."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    lexical = ("token_embedding.", "head_weight", "head_bias", "encoder_decoder.shared.", "encoder_decoder.lm_head.")
    body = sum(size for name, size in sizes.items() if not name.startswith(lexical))
    return {"total": sum(sizes.values()), "non_embedding": body}


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
