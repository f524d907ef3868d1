"""A hypothesis corrected by a denoiser that was taught to: it says which tokens are wrong, and writes those anew.

The denoiser is asked once about the whole text: of each token, what should stand there. The likeliest tokens can be
taken at once, each with an eye on the token that it takes the place of. Or a token is hidden where something else is
drawn than stands there, which is with the probability that it is wrong, and reverse diffusion fills the gaps one after
another, so that what is drawn goes together.

Shapes: B batch, L length, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.draws import RowDraws, sample
from embinv.decoding.ends import hide, write
from embinv.decoding.euler import diffuse
from embinv.decoding.parts import ask


def edit_at_once(denoiser: Denoiser, request: DecodingRequest, tokens: Tensor) -> DecodingState:
    """The texts with the likeliest token at every place, after one pass; see `edit`."""
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    said, sure = [], []
    for _, log_probability in ask(denoiser, request, tokens, everywhere):
        best, choice = log_probability.max(dim=-1)
        said.append(choice)
        sure.append(best)
    state = DecodingState(tokens, torch.zeros(tokens.shape, device=tokens.device), 0)
    return write(request, state, everywhere, torch.cat(said), torch.cat(sure))


def edit(denoiser: Denoiser, request: DecodingRequest, tokens: Tensor) -> Iterator[DecodingState]:
    """Yields the texts with what is doubted hidden, then their state after each of at most `request.steps` passes more.

    Where the end of a text is doubted, all behind it is open again.

    Args:
        denoiser: a corrector, of what the request holds in an embedding's place.
        request: says how tokens are drawn; `streams` tell apart what is drawn for equal rows.
        tokens: [B, L] int64, texts with their ends and PAD behind them. What the vocabulary lacks is hidden.
    """
    draws, options = RowDraws(request), request.options
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    drawn, sure = torch.empty_like(tokens), torch.empty(tokens.shape, device=tokens.device)
    for rows, log_probability in ask(denoiser, request, tokens, everywhere):
        noise = draws.gumbel(rows, everywhere[rows].sum(dim=1), log_probability.shape[-1])
        drawn[rows] = sample(log_probability, noise, options.temperature, options.top_p).view(len(rows), -1)
        kept = log_probability.gather(1, tokens[rows].view(-1, 1))
        sure[rows] = kept.view(len(rows), -1).float().exp()
    state = hide(request, DecodingState(tokens, sure, 0), drawn != tokens)
    yield replace(state, step=1)
    yield from diffuse(denoiser, request, state, draws, [1 / k for k in range(request.steps, 0, -1)])
