"""Behind the end of a text stands PAD: it is given, and no pass is spent on it.

Shapes: B batch, L length.
"""

import torch
from torch import Tensor

from embinv.decoding.base import DecodingRequest, DecodingState


def behind_the_end(tokens: Tensor, end_ids: tuple[int, int] | None) -> Tensor:
    """True behind the first EOS or PAD of each row: [B, L] bool of tokens [B, L]."""
    if end_ids is None:
        return torch.zeros_like(tokens, dtype=torch.bool)
    ends = torch.isin(tokens, torch.tensor(end_ids, device=tokens.device)).int()
    return (ends.cumsum(dim=1) - ends) > 0


def write(
    request: DecodingRequest, state: DecodingState, positions: Tensor, tokens: Tensor, log_probability: Tensor
) -> DecodingState:
    """The state after a pass: new tokens where they belong, and PAD behind every end that is known by now.

    What stood behind an end is dropped, as readers of a text drop it.

    Args:
        request: what is decoded.
        state: the state before.
        positions: [B, L] bool, where tokens were chosen.
        tokens: [M] int64, in row-major order of the positions.
        log_probability: [M], of each of them.
    """
    z_t, confidence = state.tokens.clone(), state.confidence.clone()
    z_t[positions] = tokens
    confidence[positions] = log_probability.float().exp()
    if request.end_ids is not None:
        behind = behind_the_end(z_t, request.end_ids)
        z_t[behind], confidence[behind] = request.end_ids[1], 1.0
    return DecodingState(z_t, confidence, state.step + 1)


def hide(request: DecodingRequest, state: DecodingState, again: Tensor) -> DecodingState:
    """Hides tokens again, [B, L] bool; where that takes the end of a text away, what was given behind it goes too."""
    behind = behind_the_end(state.tokens, request.end_ids)
    again = again & ~behind
    ends = torch.zeros_like(again)
    ends[:, 1:] = behind[:, 1:] & ~behind[:, :-1]
    lost = (again[:, :-1] & ends[:, 1:]).any(dim=1, keepdim=True)  # rows whose first end is hidden again
    again = again | (behind & lost)
    return DecodingState(
        state.tokens.masked_fill(again, request.mask_id), state.confidence.masked_fill(again, 0.0), state.step
    )
