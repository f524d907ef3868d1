"""Left to right: in each pass the next hidden tokens of a text are written, the most probable one of each.

With as many passes as tokens this is greedy autoregression by a denoiser that knows how long a text can be; with fewer,
a pass writes several tokens at once. Deterministic. A text is done when its end is written.

Shapes: B batch, L length, V vocabulary, M asked positions.
"""

from collections.abc import Iterator

import torch

from embinv.decoding.base import DecodingRequest, DecodingState, Denoiser
from embinv.decoding.ends import write
from embinv.decoding.largest import largest
from embinv.decoding.parts import ask


def decode_sequentially(denoiser: Denoiser, request: DecodingRequest) -> Iterator[DecodingState]:
    """Yields the state after each of at most `request.steps` passes; L x s / k positions are known after pass s of k.

    The denoiser is asked at the next positions only.
    """
    state = request.fully_hidden()
    steps = min(request.steps, request.length)
    for number in range(1, steps + 1):
        known = -(-request.length * number // steps)
        asked = state.tokens == request.mask_id
        asked[:, known:] = False
        if not asked.any():
            return
        best, choice = [], []
        for _, log_probability in ask(denoiser, request, state.tokens, asked):
            value, token = largest(log_probability)
            best.append(value)
            choice.append(token)
        state = write(request, state, asked, torch.cat(choice), torch.cat(best))
        yield state
