"""The seam between texts and vectors: anything that encodes is an `Encoder`, and a recipe opens one."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from embinv.encoders.sentence_transformers import SentenceTransformersEncoder
from embinv.encoders.spec import EncoderSpec


class Encoder(Protocol):
    """Texts in, vectors out."""

    spec: EncoderSpec

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns [N, D] float32, row i for text i."""
        ...


ENCODERS: dict[str, Callable[..., Encoder]] = {"sentence-transformers": SentenceTransformersEncoder}


def open_encoder(spec: EncoderSpec, device: str = "cpu", batch_size: int = 64) -> Encoder:
    """Loads the encoder that a recipe names.

    Args:
        spec: the recipe.
        device: `cpu`, `cuda` or `cuda:N`; never guessed.
        batch_size: texts in one forward pass.

    Raises:
        ValueError: the weights cannot be had, or the recipe asks for what the model does not give.
    """
    return ENCODERS[spec.kind](spec, device=device, batch_size=batch_size)
