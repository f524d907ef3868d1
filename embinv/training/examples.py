"""A few held-out texts that are recovered again and again, to see a run learn. Always the same ones, always whole.

Shapes: N texts, L length, D embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.decoding.base import DecodingState, final_state
from embinv.training.step import TokenIds, to_tensors

EXAMPLES = 8


@dataclass(frozen=True)
class Example:
    """One held-out text and what its vector gave away."""

    id: int
    original: str
    recovered: str


@torch.no_grad()
def recover_examples(
    decode: Callable[[Tensor, Tensor, TokenIds, int], Iterator[DecodingState]],
    pairs: Pairs,
    read: Callable[[np.ndarray], Sequence[str]],
    ids: TokenIds,
    steps: int,
    device: torch.device,
) -> list[Example]:
    """Recovers the first EXAMPLES texts of a split, from their vectors alone or from hypotheses.

    Args:
        decode: of an `Objective`, with a model, usually the EMA's.
        pairs: held-out texts in an order that stays the same, with the model's token ids.
        read: turns the model's ids [N, L] into texts.
        ids: of the model's numbering.
        steps: denoising passes.
        device: where the model is.
    """
    given, embedding = to_tensors(pairs, np.arange(min(EXAMPLES, len(pairs))), device)
    tokens = final_state(decode(given, embedding, ids, steps)).tokens.cpu().numpy()  # [N, L]
    rows = zip(pairs.ids[:EXAMPLES].tolist(), pairs.texts[:EXAMPLES], read(tokens), strict=True)
    return [Example(*row) for row in rows]
