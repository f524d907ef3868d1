"""A few held-out texts that are recovered again and again, to see a run learn. Always the same ones, always whole.

Shapes: N texts, L length, D embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from embinv.data.pairs import Pairs
from embinv.decoding.base import DecodingRequest, Denoiser, final_state
from embinv.decoding.strategies import STRATEGIES

EXAMPLES = 8


@dataclass(frozen=True)
class Example:
    """One held-out text and what its vector gave away."""

    id: int
    original: str
    recovered: str


@torch.no_grad()
def recover_examples(
    denoiser: Denoiser,
    pairs: Pairs,
    read: Callable[[np.ndarray], Sequence[str]],
    mask_id: int,
    end_ids: tuple[int, int],
    steps: int,
    device: torch.device,
    other_id: int | None = None,
) -> list[Example]:
    """Recovers the first EXAMPLES texts of a split from their vectors alone, from a full mask.

    Args:
        denoiser: usually the EMA model.
        pairs: held-out texts in an order that stays the same, with the model's token ids.
        read: turns the model's ids [N, L] into texts.
        mask_id: id of a hidden token.
        end_ids: EOS and PAD in the model's numbering.
        steps: denoising passes.
        device: where the denoiser is.
        other_id: the id of a trimmed vocabulary that is never written.
    """
    embedding = torch.from_numpy(pairs.embeddings[:EXAMPLES]).float().to(device)  # [N, D]
    length = pairs.token_ids.shape[1]
    request = DecodingRequest(embedding, length, mask_id, steps, other_id=other_id, end_ids=end_ids)
    tokens = final_state(STRATEGIES["confidence"](denoiser, request)).tokens.cpu().numpy()  # [N, L]
    rows = zip(pairs.ids[:EXAMPLES].tolist(), pairs.texts[:EXAMPLES], read(tokens), strict=True)
    return [Example(*row) for row in rows]
