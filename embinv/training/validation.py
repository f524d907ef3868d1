"""What a model is worth in the middle of training: the NELBO, and generation from a full mask.

Held-out texts only. Accuracy under a partial mask is measured too, under its own name, since it says how
well gaps are filled and not how well a vector is inverted. Each worker takes its share; the sums are added up.

Shapes: B batch, L length, D embedding, V vocabulary, M hidden positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.decoding.base import DecodingRequest, Denoiser, final_state
from embinv.decoding.strategies import STRATEGIES
from embinv.diffusion.corruption import mask_tokens
from embinv.diffusion.loss import LOSS_WEIGHTS, token_weights
from embinv.diffusion.schedule import low_discrepancy_times
from embinv.training.engine import Engine
from embinv.training.step import step_generator, to_tensors

PARTIAL_MASKS = (0.1, 0.5)
BATCH = 128


@dataclass(frozen=True)
class Validation:
    """Figures over held-out texts.

    Attributes:
        nelbo: nats a token of L.
        token_accuracy: content tokens right after generation from a full mask.
        exact_match: texts right to the last token.
        masked_accuracy: accuracy at hidden content tokens, by the share that was hidden.
        n: texts generated.
    """

    nelbo: float
    token_accuracy: float
    exact_match: float
    masked_accuracy: dict[float, float]
    n: int

    def as_row(self) -> dict[str, float]:
        """Flat figures for a log; partial masks are named as such."""
        partial = {f"accuracy_at_{share:.0%}_mask": value for share, value in self.masked_accuracy.items()}
        return {
            "nelbo": self.nelbo,
            "token_accuracy": self.token_accuracy,
            "exact_match": self.exact_match,
            **partial,
        }


@torch.no_grad()
def validate(
    denoiser: Denoiser, pairs: Pairs, mask_id: int, end_ids: Sequence[int], steps: int, engine: Engine
) -> Validation:
    """Measures a denoiser; the draws are the same at each call, so that figures can be compared.

    Args:
        denoiser: usually the EMA model.
        pairs: held-out texts.
        mask_id: id of a hidden token.
        end_ids: EOS and PAD, which are not content.
        steps: passes of a generation.
        engine: this worker's place among the others.
    """
    sums = np.zeros(4 + 2 * len(PARTIAL_MASKS))  # nelbo x texts, texts, right, exact, then (right, hidden) by mask
    content_total = 0.0
    noised = _draw(pairs, mask_id)
    mine = np.arange(len(pairs))[engine.rank :: engine.world]
    for start in range(0, len(mine), BATCH):
        rows = mine[start : start + BATCH]
        x_0, embedding = to_tensors(pairs, rows, engine.device)
        content = ~torch.isin(x_0, torch.tensor(list(end_ids), device=x_0.device))  # [B, L]
        in_part, *partial_masks = (each.take(rows, engine.device) for each in noised)
        sums[0] += _nelbo(denoiser, x_0, embedding, in_part) * len(rows)
        right, exact = _generate(denoiser, x_0, embedding, content, mask_id, steps)
        sums[1:4] += (len(rows), right, exact)
        content_total += float(content.sum())
        for i, gaps in enumerate(partial_masks):
            sums[4 + 2 * i : 6 + 2 * i] += _fill_gaps(denoiser, x_0, embedding, content, gaps)
    *totals, content_sum = engine.total([*sums.tolist(), content_total])
    nelbo, texts, right, exact, *partial = totals
    counts = {share: partial[2 * i : 2 * i + 2] for i, share in enumerate(PARTIAL_MASKS)}
    masked = {share: right / hidden for share, (right, hidden) in counts.items() if hidden}  # few rows may hide nothing
    return Validation(nelbo / texts, right / content_sum, exact / texts, masked, int(texts))


@dataclass(frozen=True)
class _Noised:
    """Texts with a part hidden: times [B], z_t [B, L] int64, hidden [B, L] bool."""

    t: Tensor
    z_t: Tensor
    hidden: Tensor

    def take(self, rows: np.ndarray, device: torch.device) -> "_Noised":
        """The given rows, on a device."""
        return _Noised(*(part[rows].to(device) for part in (self.t, self.z_t, self.hidden)))


def _draw(pairs: Pairs, mask_id: int) -> list[_Noised]:
    """All held-out texts at times spread over (0, 1], then at each partial mask; the same for any number of workers."""
    x_0, generator = torch.from_numpy(pairs.token_ids).long(), step_generator(0, 0, 0)
    times = [low_discrepancy_times(len(x_0), generator), *(torch.full((len(x_0),), share) for share in PARTIAL_MASKS)]
    return [_Noised(t, *mask_tokens(x_0, t, mask_id, generator)) for t in times]


def _nelbo(denoiser: Denoiser, x_0: Tensor, embedding: Tensor, noised: _Noised) -> float:
    weights = token_weights(LOSS_WEIGHTS["nelbo"](noised.t), noised.hidden)  # [M]
    log_probability = denoiser(noised.z_t, embedding, noised.hidden)  # [M, V]
    return float((weights * -log_probability.gather(1, x_0[noised.hidden].unsqueeze(1)).squeeze(1)).sum())


def _generate(
    denoiser: Denoiser,
    x_0: Tensor,
    embedding: Tensor,
    content: Tensor,
    mask_id: int,
    steps: int,
) -> tuple[float, float]:
    """(content tokens right, texts right) from a full mask."""
    request = DecodingRequest(embedding, x_0.shape[1], mask_id, steps, torch.Generator(x_0.device))
    right = final_state(STRATEGIES["confidence"](denoiser, request)).tokens == x_0  # [B, L]
    ended = content.sum(dim=1)  # [B], where EOS stands
    place = torch.arange(x_0.shape[1], device=x_0.device)
    whole = (right | (place > ended.unsqueeze(1))).all(dim=1)  # what stands after EOS does not count
    return float((right & content).sum()), float(whole.sum())


def _fill_gaps(
    denoiser: Denoiser, x_0: Tensor, embedding: Tensor, content: Tensor, noised: _Noised
) -> tuple[float, float]:
    """(right, hidden) among hidden content tokens."""
    asked = noised.hidden & content
    right = denoiser(noised.z_t, embedding, asked).argmax(dim=-1) == x_0[asked]
    return float(right.sum()), float(asked.sum())
