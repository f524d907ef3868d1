"""Several samples of each vector, and the one that the model itself finds likeliest.

A sample's score is its mean log-probability: that of each token when it was chosen, the end of the text included (the
length-normalised score of generation by samples). Whoever has the encoder can choose by it instead, see
`embinv.inverter`.

Shapes: B batch, C candidates of each vector, L length.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from embinv.decoding.base import Decoder, DecodingRequest, DecodingState, Denoiser
from embinv.decoding.ends import behind_the_end
from embinv.decoding.euler import decode_by_euler
from embinv.decoding.remasking import decode_with_remasking
from embinv.decoding.two_stage import decode_in_two_stages

SAMPLERS: dict[str, Decoder] = {
    "euler": decode_by_euler,
    "remasking": decode_with_remasking,
    "two_stage": decode_in_two_stages,
}


def decode_candidates(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields of each vector the candidate that leads so far, after each pass over all of them."""
    for state in sample_candidates(denoiser, request):
        yield likeliest(request, state)


def sample_candidates(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields the states [B x C, L] of all candidates, those of one vector in a row; all are decoded together."""
    count = request.options.candidates
    before = request.streams or (0,) * len(request.embedding)
    streams = tuple(stream * count + sample for stream in before for sample in range(count))
    repeated = replace(request, embedding=request.embedding.repeat_interleave(count, dim=0), streams=streams)
    yield from SAMPLERS[request.options.sampler](denoiser, repeated)


def likeliest(request: DecodingRequest, state: DecodingState) -> DecodingState:
    """Of states [B x C, L] the best candidate of each vector, [B, L]; the first of equals."""
    count = request.options.candidates
    best = mean_log_probability(request, state).view(-1, count).argmax(dim=1)  # [B]
    rows = torch.arange(len(best), device=best.device) * count + best
    return DecodingState(state.tokens[rows], state.confidence[rows], state.step)


def mean_log_probability(request: DecodingRequest, state: DecodingState) -> Tensor:
    """[N] float64: mean over the known tokens of each row, its end included and what stands behind it not."""
    counted = (state.tokens != request.mask_id) & ~behind_the_end(state.tokens, request.end_ids)
    tiny = torch.finfo(torch.float32).tiny
    total = torch.where(counted, state.confidence.double().clamp_min(tiny).log(), 0.0).sum(dim=1)
    return total / counted.sum(dim=1).clamp_min(1)
