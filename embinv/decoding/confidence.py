"""Surest first: in each pass every hidden token is predicted and the surest of them are kept.

MaskGIT's parallel decoding (Chang et al. 2022, section 3.2) with the most probable token, surest by its probability, by
its margin over the second (Kim et al. 2025, arXiv 2502.06768) or by the negative entropy of its place (LLaDA's and
Dream's other orders). Deterministic. No token, once kept, is looked at again; only the end of a text, where it is
found, gives PAD to all behind it. PAD that is as sure as the least sure of the tokens that a pass keeps comes with them
and is not counted: a text's length is known long before its words are.

Shapes: B batch, L length, V vocabulary, M asked positions.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.ends import write
from embinv.decoding.largest import largest
from embinv.decoding.parts import ask

ROUNDING = 1e-9  # what a share times a length may miss a whole number by


def _confidence(log_probability: Tensor, best: Tensor) -> Tensor:
    return best


def _margin(log_probability: Tensor, best: Tensor) -> Tensor:
    likeliest = log_probability.topk(min(2, log_probability.shape[-1]), dim=-1).values.exp()
    return 2 * likeliest[..., 0] - likeliest.sum(dim=-1)


def _negative_entropy(log_probability: Tensor, best: Tensor) -> Tensor:
    return -torch.special.entr(log_probability.exp()).sum(dim=-1)


SURENESS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "confidence": _confidence,
    "margin": _margin,
    "entropy": _negative_entropy,
}
"""Log-probabilities [M, V] and each line's largest [M] -> how sure each position is, [M]; only the order counts."""

STILL_HIDDEN: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: math.cos(math.pi / 2 * done),  # MaskGIT, section 3.2
}
"""Share of the passes that are made -> share of the tokens that is hidden after them."""


def decode_by_confidence(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields the state after each of at most `request.steps` passes.

    After pass s of k at most floor(L x share still hidden) tokens of a text are hidden. Where the end of a text is
    found, all behind it is known at once, and the text sits out the passes that it is ahead of.
    """
    state, hidden_share = request.fully_hidden(), STILL_HIDDEN[request.options.reveal]
    steps = min(request.steps, request.length)
    for number in range(1, steps + 1):
        hidden = state.tokens == request.mask_id  # [B, L]
        target = int(request.length * hidden_share(number / steps) + ROUNDING) if number < steps else 0
        count = (hidden.sum(dim=1) - target).clamp_min(0)  # [B] to keep in this pass
        if not count.any():
            continue
        state = _keep_surest(denoiser, request, state, hidden & (count > 0).unsqueeze(1), count)
        yield state


def _keep_surest(
    denoiser: Denoiser, request: DecodingRequest, state: DecodingState, asked: Tensor, count: Tensor
) -> DecodingState:
    """One pass: asks at `asked` [B, L] and keeps the count[i] surest tokens of each row."""
    best, choice, sureness = [], [], []
    for _, log_probability in ask(denoiser, request, state.tokens, asked):
        value, token = largest(log_probability)
        best.append(value)
        choice.append(token)
        sureness.append(SURENESS[request.options.order](log_probability, value))
    score = torch.full(asked.shape, -torch.inf, device=asked.device)
    score[asked] = torch.cat(sureness).float()
    padding = torch.zeros_like(asked)
    if request.end_ids is not None:
        padding[asked] = torch.cat(choice) == request.end_ids[1]
        padding &= (asked & ~padding).any(dim=1, keepdim=True)  # with nothing else to keep, it is ranked like all else
    keep = _highest(score.masked_fill(padding, -torch.inf), count) & asked & ~padding
    # Padding that is as sure as what is kept comes with it and is not counted.
    weakest = score.masked_fill(~keep, torch.inf).amin(dim=1, keepdim=True)  # [B, 1]
    keep |= padding & ((score >= weakest) | (count >= asked.sum(dim=1)).unsqueeze(1))
    kept = keep[asked]  # [M]
    return write(request, state, keep, torch.cat(choice)[kept], torch.cat(best)[kept])


def _highest(score: Tensor, count: Tensor) -> Tensor:
    """True at the count[i] highest scores of row i of [B, L]; the earlier position wins a tie."""
    order = score.argsort(dim=-1, descending=True, stable=True)
    rank = torch.arange(score.shape[1], device=score.device).expand_as(order)
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, rank < count.unsqueeze(1))
