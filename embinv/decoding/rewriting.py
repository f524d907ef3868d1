"""A text that is there, with a part of it hidden and written anew: what an inverter can do for a hypothesis.

A denoiser hides each token with probability t, as the forward process hides it, the end of the text among them, and
reverse diffusion runs from t to 0 under the vector. A model that writes from left to right keeps a beginning.

Shapes: B batch, L length, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from embinv.decoding.autoregressive import Writer, allowed
from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.draws import RowDraws, sample
from embinv.decoding.ends import behind_the_end, hide
from embinv.decoding.euler import diffuse


def rewrite(denoiser: Denoiser, request: DecodingRequest, tokens: Tensor, shares: Tensor) -> Iterator[DecodingState]:
    """Yields the texts with a part hidden, then their state after each of at most `request.steps` passes.

    Args:
        denoiser: writes.
        request: the vectors [B, D]; `streams` tell apart what is drawn for equal ones.
        tokens: [B, L] int64, texts with their ends and PAD behind them. What the vocabulary lacks is hidden.
        shares: [B], t: with which probability every other token is hidden.
    """
    draws = RowDraws(request)
    hidden = _unknown(request, tokens) | (draws.uniform(request.length) < shares.to(draws.device).unsqueeze(1))
    state = DecodingState(tokens, torch.ones(tokens.shape, device=tokens.device), 0)
    state = hide(request, state, hidden & ~behind_the_end(tokens, request.end_ids))
    yield state
    yield from diffuse(denoiser, request, state, draws, [1 / k for k in range(request.steps, 0, -1)])


def rewrite_end(writer: Writer, request: DecodingRequest, tokens: Tensor, shares: Tensor) -> Iterator[DecodingState]:
    """Yields the texts with their last part hidden, then the state after each token, drawn by its probability.

    Args:
        writer: writes.
        request: the vectors [B, D]; `streams` tell apart what is drawn for equal ones.
        tokens: [B, L] int64, texts with their ends and PAD behind them. From what the vocabulary lacks on, all goes.
        shares: [B], how much of a text goes in the mean: between nothing but its end, and twice as much.
    """
    draws, options = RowDraws(request), request.options
    length = (~behind_the_end(tokens, request.end_ids)).sum(dim=1)  # [B], the end counted
    going = 2 * shares.to(draws.device) * draws.uniform(1).squeeze(1)  # [B]
    kept = ((1 - going.clamp(max=1)) * length).long().clamp(max=length - 1)
    unknown = _unknown(request, tokens)
    kept = torch.where(unknown.any(dim=1), torch.minimum(kept, unknown.int().argmax(dim=1)), kept)
    places = torch.arange(request.length, device=tokens.device)
    known = places < kept.unsqueeze(1)  # [B, L]
    state = DecodingState(tokens.masked_fill(~known, request.mask_id), known.float(), 0)
    yield state
    writing = writer.begin(request.embedding)
    last = torch.full_like(kept, writer.start_id)
    rows, one = torch.arange(len(tokens), device=tokens.device), torch.ones_like(kept)
    for place in range(request.length):
        said = allowed(writing.next_token(last), request)
        if options.temperature == 0.0:
            drawn = said.argmax(dim=-1)
        else:
            drawn = sample(said, draws.gumbel(rows, one, said.shape[-1]), options.temperature, options.top_p)
        last = torch.where(known[:, place], tokens[:, place], drawn)
        written, sure = state.tokens.clone(), state.confidence.clone()
        written[:, place] = last
        sure[:, place] = torch.where(known[:, place], 1.0, said.gather(1, drawn.unsqueeze(1)).squeeze(1).exp())
        if request.end_ids is not None:
            behind = behind_the_end(written, request.end_ids)
            written[behind], sure[behind] = request.end_ids[1], 1.0
        state = DecodingState(written, sure, place + 1)
        yield state
        if not (written == request.mask_id).any():
            return


def _unknown(request: DecodingRequest, tokens: Tensor) -> Tensor:
    """[B, L] bool: where a text has a token that the vocabulary lacks."""
    return torch.zeros_like(tokens, dtype=torch.bool) if request.other_id is None else tokens == request.other_id
