"""The reverse diffusion in equal steps of time, by sampling.

MDLM's ancestral sampler (Sahoo et al. 2024, equation 7) with alpha_t = 1 - t: from t to s < t a hidden token is
revealed with probability (t - s) / t and then drawn from the denoiser's distribution. Which tokens a pass reveals is
decided first, and the denoiser is asked at those alone: the same process, since the draw of a token that stays hidden
would be lost.

Shapes: B batch, L length, V vocabulary, M asked positions.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.draws import RowDraws, sample
from embinv.decoding.ends import write
from embinv.decoding.parts import ask


def decode_by_euler(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields the state after each pass that revealed something, at most `request.steps`."""
    draws = RowDraws(request)
    yield from diffuse(denoiser, request, request.fully_hidden(), draws, [1 / k for k in range(request.steps, 0, -1)])


def diffuse(
    denoiser: Denoiser, request: DecodingRequest, state: DecodingState, draws: RowDraws, shares: list[float]
) -> Iterator[DecodingState]:
    """Reveals hidden tokens pass by pass, each with probability shares[i]; the last share is 1."""
    for share in shares:
        found = reveal(denoiser, request, state, share, draws)
        if found is not state:
            state = found
            yield state
        if not (state.tokens == request.mask_id).any():
            return


def reveal(
    denoiser: Denoiser, request: DecodingRequest, state: DecodingState, share: float, draws: RowDraws
) -> DecodingState:
    """One pass: every hidden token is drawn with probability `share`; returns `state` itself if none was."""
    hidden = state.tokens == request.mask_id
    chosen = hidden & (draws.uniform(request.length) < share)
    if not chosen.any():
        return state
    said, sure = [], []
    for rows, log_probability in ask(denoiser, request, state.tokens, chosen):
        token = _draw(log_probability, rows, chosen[rows].sum(dim=1), request, draws)
        said.append(token)
        sure.append(log_probability.gather(1, token.unsqueeze(1)).squeeze(1))
    return write(request, state, chosen, torch.cat(said), torch.cat(sure))


def _draw(log_probability: Tensor, rows: Tensor, counts: Tensor, request: DecodingRequest, draws: RowDraws) -> Tensor:
    options = request.options
    if options.temperature == 0.0:
        return log_probability.argmax(dim=-1)
    noise = draws.gumbel(rows, counts, log_probability.shape[-1])  # [M, V]
    return sample(log_probability, noise, options.temperature, options.top_p)
