"""How well gaps are filled: accuracy in one pass where part of a text is hidden and the rest is in sight.

It is no inversion, and every figure here is named by its mask: with 10% hidden, the words around a gap give most of it
away, whatever the vector says. Where the text ends is shown.

Shapes: B batch, L length.
"""

from collections.abc import Sequence

import numpy as np
import torch

from embinv.data.pairs import Pairs
from embinv.data.vocabulary import Vocabulary
from embinv.decoding.base import Denoiser
from embinv.decoding.parts import in_parts
from embinv.metrics.figures import Figure
from embinv.metrics.tokens import token_accuracy

MASKS = (0.1, 0.5, 1.0)  # shares of the content
BATCH = 128


def gap_name(share: float) -> str:
    """What a report calls the accuracy at a mask."""
    return f"accuracy_at_{share:.0%}_mask"


@torch.inference_mode()
def accuracy_at_masks(
    denoiser: Denoiser,
    test: Pairs,
    ends: tuple[int, int],
    vocabulary: Vocabulary,
    device: torch.device,
    masks: Sequence[float] = MASKS,
    seed: int = 0,
) -> dict[str, Figure]:
    """Accuracy at hidden content tokens, by the share that is hidden.

    Args:
        denoiser: with ids of `vocabulary`.
        test: held-out texts with the tokenizer's ids.
        ends: the tokenizer's EOS and PAD.
        vocabulary: what the denoiser knows; a token outside it counts as wrong.
        device: of the denoiser.
        masks: shares.
        seed: of what is hidden.

    Returns:
        Figures by `gap_name`, over the texts of which a token was hidden; absent where they are fewer than two.
    """
    generator = torch.Generator().manual_seed(seed)
    true: dict[float, list[list[int]]] = {share: [] for share in masks}
    filled: dict[float, list[list[int]]] = {share: [] for share in masks}
    for start in range(0, len(test), BATCH):
        rows = test.take(np.arange(start, min(start + BATCH, len(test))))
        embedding = torch.from_numpy(rows.embeddings).float().to(device)
        x_0 = torch.from_numpy(vocabulary.compact(rows.token_ids)).long()  # [B, L]
        content = torch.from_numpy(~np.isin(rows.token_ids, ends))
        for share in masks:
            hidden = content & (torch.rand(x_0.shape, generator=generator) < share)
            z_t = x_0.masked_fill(hidden, vocabulary.size).to(device)
            parts = in_parts(denoiser, z_t, embedding, hidden.to(device), vocabulary.size, vocabulary.other_id)
            best = torch.cat([log_probability.argmax(dim=-1) for _, log_probability in parts])  # [M]
            guesses = np.zeros(x_0.shape, dtype=np.int32)
            guesses[hidden.numpy()] = vocabulary.original(best.cpu().numpy())
            for truth, guess, asked in zip(rows.token_ids, guesses, hidden.numpy(), strict=True):
                if asked.any():
                    true[share].append(truth[asked].tolist())
                    filled[share].append(guess[asked].tolist())
    return {gap_name(share): token_accuracy(true[share], filled[share]) for share in masks if len(true[share]) >= 2}
