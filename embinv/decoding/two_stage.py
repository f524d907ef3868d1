"""A hypothesis from left to right, then part of it hidden and written anew.

Half of the passes write the hypothesis (all of them, if there is one pass only). Then each of its tokens is hidden with
probability t, as the forward process hides it, and reverse diffusion runs from t to 0 in the passes that are left.
"""

from collections.abc import Iterator
from dataclasses import replace

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.draws import RowDraws
from embinv.decoding.ends import behind_the_end, hide
from embinv.decoding.euler import diffuse
from embinv.decoding.sequential import decode_sequentially


def decode_in_two_stages(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields the state after each of at most `request.steps` passes."""
    refining = request.steps // 2
    state = request.fully_hidden()
    for state in decode_sequentially(denoiser, replace(request, steps=request.steps - refining)):
        yield state
    if not refining:
        return
    draws = RowDraws(request)
    content = ~behind_the_end(state.tokens, request.end_ids)
    hidden = hide(request, state, content & (draws.uniform(request.length) < request.options.refined_share))
    yield from diffuse(denoiser, request, hidden, draws, [1 / k for k in range(refining, 0, -1)])
