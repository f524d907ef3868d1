"""The decoders by name: what `strategy=` may say."""

from embinv.decoding.base import Decoder
from embinv.decoding.confidence import decode_by_confidence

STRATEGIES: dict[str, Decoder] = {"confidence": decode_by_confidence}
