"""The seam between texts and vectors: anything that encodes is an `Encoder`, and a recipe opens one.

Each kind loads its own libraries when it is opened, for some of them take seconds.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec
from embinv.encoders.tokens import EncoderTokenizer, Tokens

if TYPE_CHECKING:
    from embinv.encoders.openai_answers import Rejection


class Encoder(Protocol):
    """Texts in, vectors out."""

    spec: EncoderSpec

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns [N, D] float32, row i for text i."""
        ...


@runtime_checkable
class TokenEncoder(Encoder, Protocol):
    """An encoder that also takes texts that its `EncoderTokenizer` has tokenised elsewhere."""

    def encode_tokens(self, tokens: Tokens) -> np.ndarray:
        """Returns [N, D] float32, row i for text i; a vector that is not finite is left in."""
        ...


@runtime_checkable
class RejectingEncoder(Encoder, Protocol):
    """An encoder that may refuse a text, and then still encodes the others."""

    def encode_or_reject(self, texts: Sequence[str]) -> "tuple[np.ndarray, np.ndarray, list[Rejection]]":
        """Returns [M, D] float32, the rows [M] int64 of the texts that they belong to, and why the others have none."""
        ...


def _sentence_transformers(spec: EncoderSpec, device: str, settings: EncodingSettings | None) -> Encoder:
    from embinv.encoders.sentence_transformers import SentenceTransformersEncoder

    return SentenceTransformersEncoder(spec, device, settings)


def _openai(spec: EncoderSpec, device: str, settings: EncodingSettings | None) -> Encoder:
    from embinv.encoders.openai import OpenAIEncoder

    return OpenAIEncoder(spec, settings or EncodingSettings())


def _hash(spec: EncoderSpec, device: str, settings: EncodingSettings | None) -> Encoder:
    from embinv.encoders.hashing import HashEncoder

    return HashEncoder(spec)


ENCODERS: dict[str, Callable[[EncoderSpec, str, EncodingSettings | None], Encoder]] = {
    "sentence-transformers": _sentence_transformers,
    "openai": _openai,
    "hash": _hash,
}


def open_encoder(spec: EncoderSpec, device: str = "cpu", settings: EncodingSettings | None = None) -> Encoder:
    """Loads the encoder that a recipe names.

    Args:
        spec: the recipe.
        device: `cpu`, `cuda` or `cuda:N`; never guessed.
        settings: how to spend the hardware; None computes exactly in the recipe's dtype.

    Raises:
        ValueError: the weights cannot be had, or the recipe asks for what the model does not give.
    """
    return ENCODERS[spec.kind](spec, device, settings)


def open_tokenizer(spec: EncoderSpec) -> EncoderTokenizer | None:
    """The encoder's own tokenisation, without its weights; None for a kind that takes texts only.

    Raises:
        ValueError: the tokenizer cannot be had.
    """
    if spec.kind != "sentence-transformers":
        return None
    from embinv.encoders.tokenizer_files import load_tokenizer

    return load_tokenizer(spec)
