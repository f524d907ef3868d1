"""Confidence order: in each pass every hidden token is predicted and the surest of them are kept.

MaskGIT's parallel decoding (Chang et al. 2022, section 3.2) with a linear schedule and the most probable token:
after pass s of k, ceil(L x s / k) positions are known. Deterministic. No token, once kept, is looked at again.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.parts import in_parts


def decode_by_confidence(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields the state after each of at most `request.steps` passes."""
    state = request.fully_hidden()
    steps = min(request.steps, request.length)
    for step in range(1, steps + 1):
        known = math.ceil(request.length * step / steps)
        state = _reveal(denoiser, request, state, known, step)
        yield state


def _reveal(denoiser: Denoiser, request: DecodingRequest, state: DecodingState, known: int, step: int) -> DecodingState:
    hidden = state.tokens == request.mask_id  # [B, L]
    parts = in_parts(denoiser, state.tokens, request.embedding, hidden, request.mask_id, request.other_id)
    likeliest = [log_probability.max(dim=-1) for _, log_probability in parts]
    best = torch.cat([part.values for part in likeliest])  # [M]
    choice = torch.cat([part.indices for part in likeliest])  # [M]
    score = torch.full(hidden.shape, -torch.inf, device=hidden.device)
    score[hidden] = best.float()
    proposed = state.tokens.clone()
    proposed[hidden] = choice
    keep = _surest(score, known - (request.length - int(hidden[0].sum()))) & hidden
    return DecodingState(
        torch.where(keep, proposed, state.tokens), torch.where(keep, score.exp(), state.confidence), step
    )


def _surest(score: Tensor, count: int) -> Tensor:
    """True at the `count` highest scores of each row [B, L]; the earlier position wins a tie."""
    order = score.argsort(dim=-1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, True)
