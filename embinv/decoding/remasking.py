"""Reverse diffusion that takes tokens back: between two passes some known tokens are hidden again and written anew.

Two plain rules hide what the denoiser was unsure of when it wrote it, the one by a threshold, the other in proportion
to its doubt. The others are ReMDM (Wang et al. 2025, arXiv 2503.00307): with probability sigma, at most
(1 - alpha_s) / alpha_t, a known token is hidden, and hidden ones are revealed so much likelier that at each time as
many are known as without it (equation 6). Its confidence schedule shares one such probability out among the known
tokens, hides one of them at most on average, and reveals as without it. alpha_t = 1 - t.

Shapes: B batch, L length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.draws import RowDraws
from embinv.decoding.ends import behind_the_end, hide
from embinv.decoding.euler import reveal

LOOP_ON, LOOP_OFF, LOOP_ALPHA = 0.55, 0.05, 0.9  # ReMDM-loop: when it begins and ends, and what is known meanwhile


@dataclass(frozen=True)
class Moment:
    """One pass, from time t to time s.

    Attributes:
        alpha_t: share of the tokens that is known before it.
        alpha_s: share that is known after it.
        sigma: probability that a known token is hidden again, made good by `share`.
    """

    alpha_t: float
    alpha_s: float
    sigma: float

    @property
    def share(self) -> float:
        """Probability that a hidden token is revealed, so that alpha_s comes out."""
        if self.alpha_s >= 1.0:
            return 1.0
        return (self.alpha_s - (1.0 - self.sigma) * self.alpha_t) / (1.0 - self.alpha_t)


def sigma_max(alpha_t: float, alpha_s: float) -> float:
    """The largest sigma for which hidden tokens can make good what is lost."""
    return min(1.0, (1.0 - alpha_s) / alpha_t) if alpha_t > 0.0 else 1.0


def _straight(steps: int) -> list[tuple[float, float]]:
    return [(number / steps, (number + 1) / steps) for number in range(steps)]


def _plain(steps: int, rate: float) -> list[Moment]:
    return [Moment(*alphas, sigma=0.0) for alphas in _straight(steps)]


def _capped(steps: int, rate: float) -> list[Moment]:
    return [Moment(*alphas, sigma=min(rate, sigma_max(*alphas))) for alphas in _straight(steps)]


def _rescaled(steps: int, rate: float) -> list[Moment]:
    return [Moment(*alphas, sigma=rate * sigma_max(*alphas)) for alphas in _straight(steps)]


def _looped(steps: int, rate: float) -> list[Moment]:
    """Quickly to LOOP_ALPHA, there for a while with tokens exchanged, then on to the end."""
    before, after = round(steps * (1.0 - LOOP_ON)), max(1, round(steps * LOOP_OFF))
    before = min(before, steps - after)
    between = steps - before - after
    held = LOOP_ALPHA if before else 0.0
    up = [Moment(held * i / before, held * (i + 1) / before, 0.0) for i in range(before)]
    loop = [Moment(held, held, min(rate, sigma_max(held, held))) for _ in range(between)] if before else []
    rest = steps - len(up) - len(loop)
    last = [held + (1.0 - held) * i / rest for i in range(rest)]
    return [*up, *loop, *(Moment(a, b, 0.0) for a, b in zip(last, [*last[1:], 1.0], strict=True))]


def _by_chance(known: Tensor, confidence: Tensor, moment: Moment, rate: float) -> Tensor:
    return torch.full_like(confidence, moment.sigma)


def _below(known: Tensor, confidence: Tensor, moment: Moment, rate: float) -> Tensor:
    return (confidence < rate).to(confidence.dtype)


def _unsure_likelier(known: Tensor, confidence: Tensor, moment: Moment, rate: float) -> Tensor:
    """`rate` x a token's doubt over the mean doubt of the row's known tokens, at most 1."""
    doubt = torch.where(known, 1.0 - confidence, 0.0)
    total = doubt.sum(dim=1, keepdim=True).clamp_min(torch.finfo(doubt.dtype).tiny)
    return rate * known.sum(dim=1, keepdim=True) * doubt / total


def _softmax_of_doubt(known: Tensor, confidence: Tensor, moment: Moment, rate: float) -> Tensor:
    """ReMDM's confidence schedule: sigma_max shared out among the known tokens by the softmax of minus confidence."""
    weight = torch.where(known, (-confidence).exp(), 0.0)
    total = weight.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    return sigma_max(moment.alpha_t, moment.alpha_s) * weight / total


@dataclass(frozen=True)
class Rule:
    """A way to take tokens back.

    Attributes:
        moments: (passes, rate) -> the times of a run.
        chances: (known [B, L], confidence [B, L] float64, moment, rate) -> probability [B, L] that a token is hidden.
    """

    moments: Callable[[int, float], list[Moment]]
    chances: Callable[[Tensor, Tensor, Moment, float], Tensor]


RULES: dict[str, Rule] = {
    "threshold": Rule(_plain, _below),
    "probability": Rule(_plain, _unsure_likelier),
    "remdm-cap": Rule(_capped, _by_chance),
    "remdm-rescale": Rule(_rescaled, _by_chance),
    "remdm-confidence": Rule(_plain, _softmax_of_doubt),
    "remdm-loop": Rule(_looped, _by_chance),
}


def decode_with_remasking(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields the state after each pass that revealed something; in the last pass nothing is hidden.

    It is not over when all is known for a moment: a later pass may take tokens back.
    """
    rule, rate = RULES[request.options.remasking], request.options.remasking_rate
    draws, state = RowDraws(request), request.fully_hidden()
    for moment in rule.moments(request.steps, rate):
        # Both happen at once: what is hidden now was seen when the others were drawn, and is not drawn before the next.
        known = (state.tokens != request.mask_id) & ~behind_the_end(state.tokens, request.end_ids)
        chance = rule.chances(known, state.confidence.double(), moment, rate)
        again = known & (draws.uniform(request.length) < chance)
        passes = state.step
        state = reveal(denoiser, request, state, moment.share, draws)
        if moment.alpha_s < 1.0:
            state = hide(request, state, again)
        if state.step > passes:
            yield state
