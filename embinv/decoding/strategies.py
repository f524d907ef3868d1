"""The decoders by name: what `strategy=` may say."""

from embinv.decoding.base import Decoder
from embinv.decoding.candidates import SAMPLERS, decode_candidates
from embinv.decoding.confidence import decode_by_confidence
from embinv.decoding.sequential import decode_sequentially

STRATEGIES: dict[str, Decoder] = {
    "confidence": decode_by_confidence,
    "sequential": decode_sequentially,
    **SAMPLERS,
    "candidates": decode_candidates,
}
