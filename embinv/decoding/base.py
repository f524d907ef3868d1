"""What a decoder sees of a model, and what it gives back. No decoder here; no model class, no config.

Shapes: B batch, L length, D embedding, V vocabulary, M asked positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from embinv.decoding.options import DecodingOptions


class Denoiser(Protocol):
    """(z_t [B, L] int64, embedding [B, D], positions [B, L] bool or None) -> log-probabilities.

    [M, V] in row-major order of the asked positions, or [B, L, V] if none are given.
    """

    def __call__(self, z_t: Tensor, embedding: Tensor, positions: Tensor | None = None, /) -> Tensor: ...


@dataclass(frozen=True)
class DecodingState:
    """A batch on its way from all hidden to all known.

    Attributes:
        tokens: [B, L] int64, `mask_id` where still hidden.
        confidence: [B, L] float32, the denoiser's probability of each token when it was chosen; 0 where still hidden,
            1 behind the end of a text, which is given.
        step: passes made so far.
    """

    tokens: Tensor
    confidence: Tensor
    step: int


@dataclass(frozen=True)
class DecodingRequest:
    """What to decode.

    Attributes:
        embedding: [B, D] float.
        length: L.
        mask_id: id of a hidden token: V, one past the ids that can be predicted.
        steps: passes through the denoiser at most, 1 or more.
        seed: with the vector itself, all that decoders that sample depend on.
        other_id: id that is never written, the `other` of a trimmed vocabulary; None if there is no such.
        end_ids: EOS and PAD, in the denoiser's numbering; None for texts that always have L tokens.
        options: how decoders do what they do.
        streams: [B] numbers that tell several samples of one vector apart; None for one sample each.
    """

    embedding: Tensor
    length: int
    mask_id: int
    steps: int
    seed: int = 0
    other_id: int | None = None
    end_ids: tuple[int, int] | None = None
    options: DecodingOptions = field(default_factory=DecodingOptions)
    streams: tuple[int, ...] | None = None

    def fully_hidden(self) -> DecodingState:
        """The state every decoder starts from."""
        shape, device = (self.embedding.shape[0], self.length), self.embedding.device
        return DecodingState(
            torch.full(shape, self.mask_id, dtype=torch.int64, device=device), torch.zeros(shape, device=device), 0
        )


Decoder = Callable[[Denoiser, DecodingRequest], Iterator[DecodingState]]
"""Yields the state after each pass; the last one holds no hidden token."""


def final_state(states: Iterator[DecodingState]) -> DecodingState:
    """Runs a decoder to its end."""
    *_, last = states
    return last
