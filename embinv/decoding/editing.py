"""A hypothesis corrected by a denoiser that was taught to: it says which tokens are wrong, and writes those anew.

The denoiser is asked once about the whole text: of each token, what should stand there. A token is hidden where
something else is drawn than stands there, which is with the probability that it is wrong; reverse diffusion then fills
the gaps, and sees what was kept. Where the end of a text is doubted, all behind it is open again.

Shapes: B batch, L length, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.draws import RowDraws, sample
from embinv.decoding.ends import hide
from embinv.decoding.euler import diffuse
from embinv.decoding.parts import ask


def edit(denoiser: Denoiser, request: DecodingRequest, tokens: Tensor) -> Iterator[DecodingState]:
    """Yields the texts with what is doubted hidden, then their state after each of at most `request.steps` passes more.

    Args:
        denoiser: a corrector, of what the request holds in an embedding's place.
        request: with temperature 0, the likeliest token decides what is wrong and what is written.
        tokens: [B, L] int64, texts with their ends and PAD behind them. What the vocabulary lacks is hidden.
    """
    draws, options = RowDraws(request), request.options
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    wanted, sure = torch.empty_like(tokens), torch.empty(tokens.shape, device=tokens.device)
    for rows, log_probability in ask(denoiser, request, tokens, everywhere):
        if options.temperature == 0.0:
            said = log_probability.argmax(dim=-1)
        else:
            counts = everywhere[rows].sum(dim=1)
            noise = draws.gumbel(rows, counts, log_probability.shape[-1])
            said = sample(log_probability, noise, options.temperature, options.top_p)
        wanted[rows] = said.view(len(rows), -1)
        kept = log_probability.gather(1, tokens[rows].view(-1, 1).clamp_max(log_probability.shape[-1] - 1))
        sure[rows] = kept.view(len(rows), -1).float().exp()
    state = hide(request, DecodingState(tokens, sure, 0), wanted != tokens)
    yield replace(state, step=1)
    yield from diffuse(denoiser, request, state, draws, [1 / k for k in range(request.steps, 0, -1)])
