"""What was recovered from a vector, and what can be done with it once it is there. No model here.

Shapes: N vectors, C candidates of each, D embedding.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from embinv.calibration import Calibration
from embinv.data.corrections import end_marked
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.decoding.base import DecodingState


@dataclass(frozen=True)
class Inversion:
    """What was recovered from one vector.

    Attributes:
        text: the recovered text.
        token_ids: its content tokens.
        token_confidence: the model's probability of each of them when it was chosen.
        confidence: geometric mean of those, the end of the text included.
        cosine: between the vector and the text's own, where the encoder chose this text among others.
        token_probability: probability that each token is right, calibrated on validation texts; None if this way of
            decoding was not calibrated (`embinv.calibration`).
        probability: that at least 90% of the text is right, likewise.
        encoder_calls: texts that the encoder embedded for this vector, where the text was refined with its help.
    """

    text: str
    token_ids: list[int]
    token_confidence: list[float]
    confidence: float
    cosine: float | None = None
    token_probability: list[float] | None = None
    probability: float | None = None
    encoder_calls: int | None = None


def read_texts(state: DecodingState, tokenizer: TextTokenizer, vocabulary: Vocabulary) -> list[Inversion]:
    """The texts of a state [B, L] whose tokens are all known."""
    tokens = vocabulary.original(state.tokens.cpu().numpy()).tolist()
    return [_inversion(tokenizer, *row) for row in zip(tokens, state.confidence.tolist(), strict=True)]


def _inversion(tokenizer: TextTokenizer, tokens: list[int], confidence: list[float]) -> Inversion:
    content = tokenizer.content(tokens)
    counted = np.asarray(confidence[: len(content) + 1], dtype=np.float64)
    mean = float(np.exp(np.log(np.maximum(counted, np.finfo(np.float32).tiny)).mean()))
    return Inversion(tokenizer.decode(content), content, confidence[: len(content)], mean)


def text_ids(texts: list[str], tokenizer: TextTokenizer, vocabulary: Vocabulary, length: int) -> Tensor:
    """Texts as a model reads them: its ids [N, L] int64, cut to L - 1, with their ends and PAD behind them."""
    table = end_marked(tokenizer.encode(texts), length, tokenizer.eos_id, tokenizer.pad_id)
    return torch.from_numpy(vocabulary.compact(table).astype(np.int64))


def text_stream(text: str) -> int:
    """A number that tells draws for one text from those for another, beside the same vector."""
    return zlib.crc32(text.encode()) << 16


def with_probabilities(inversions: list[Inversion], calibration: Calibration | None) -> list[Inversion]:
    """The same inversions with the probabilities that a calibration reads off them; as they are without one."""
    if calibration is None:
        return inversions
    return [
        replace(
            each,
            token_probability=calibration.token(each.token_confidence),
            probability=calibration.text([each.confidence])[0],
        )
        for each in inversions
    ]


def choose_closest(vectors: np.ndarray, candidates: list[Inversion], own: np.ndarray) -> list[Inversion]:
    """Of each vector's C candidates, in a row, the one whose text's own vector is closest; the first of equals.

    Args:
        vectors: [N, D] that were inverted.
        candidates: N x C of them.
        own: [N x C, D], the encoder's vectors of the candidates' texts.

    Raises:
        ValueError: the encoder gave no candidate of a vector a direction.
    """
    count = len(candidates) // len(vectors)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
    wanted = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (own.reshape(len(vectors), count, -1) * wanted[:, None, :]).sum(axis=-1)  # [N, C]
    cosines[~np.isfinite(cosines)] = -np.inf  # the vector of an empty text can be zero
    if not np.isfinite(cosines.max(axis=1)).all():
        raise ValueError("the encoder gives no candidate of a vector a direction; take `candidates` without an encoder")
    best = cosines.argmax(axis=1)
    return [
        replace(candidates[row * count + place], cosine=float(cosines[row, place]))
        for row, place in enumerate(best.tolist())
    ]
