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


def close(request: DecodingRequest, tokens: Tensor, confidence: Tensor, step: int) -> DecodingState:
    """The state with PAD behind every end that is known; what stood there is dropped, as readers of a text drop it."""
    behind = behind_the_end(tokens, request.end_ids)
    if request.end_ids is None or not behind.any():
        return DecodingState(tokens, confidence, step)
    return DecodingState(tokens.masked_fill(behind, request.end_ids[1]), confidence.masked_fill(behind, 1.0), step)


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
