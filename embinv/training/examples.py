"""A few held-out texts that are recovered again and again, to see a run learn. Always the same ones, always whole.

Shapes: N texts, L length, D embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from embinv.data.pairs import Pairs
from embinv.decoding.base import DecodingRequest, DecodingState, final_state
from embinv.training.step import TokenIds

EXAMPLES = 8


@dataclass(frozen=True)
class Example:
    """One held-out text and what its vector gave away."""

    id: int
    original: str
    recovered: str


@torch.no_grad()
def recover_examples(
    decode: Callable[[DecodingRequest], Iterator[DecodingState]],
    pairs: Pairs,
    read: Callable[[np.ndarray], Sequence[str]],
    ids: TokenIds,
    steps: int,
    device: torch.device,
) -> list[Example]:
    """Recovers the first EXAMPLES texts of a split from their vectors alone.

    Args:
        decode: a decoder of a model, usually the EMA's.
        pairs: held-out texts in an order that stays the same, with the model's token ids.
        read: turns the model's ids [N, L] into texts.
        ids: of the model's numbering.
        steps: denoising passes.
        device: where the model is.
    """
    embedding = torch.from_numpy(pairs.embeddings[:EXAMPLES]).float().to(device)  # [N, D]
    length = pairs.token_ids.shape[1]
    request = DecodingRequest(embedding, length, ids.mask_id, steps, other_id=ids.other_id, end_ids=ids.ends)
    tokens = final_state(decode(request)).tokens.cpu().numpy()  # [N, L]
    rows = zip(pairs.ids[:EXAMPLES].tolist(), pairs.texts[:EXAMPLES], read(tokens), strict=True)
    return [Example(*row) for row in rows]
