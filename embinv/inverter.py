"""The inverter: a checkpoint folder in, and for each vector the text it came from.

`Inverter` is what evaluation, serving and the command line see; the diffusion inverter is one. Inversion never
reads the encoder.

Shapes: N vectors, D embedding, L length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from embinv.checkpoint import Checkpoint, CheckpointConfig, load_checkpoint
from embinv.data.vectors import check_embeddings
from embinv.decoding.base import DecodingRequest, final_state
from embinv.decoding.strategies import STRATEGIES


@dataclass(frozen=True)
class Inversion:
    """What was recovered from one vector.

    Attributes:
        text: the recovered text.
        token_ids: its content tokens.
        token_confidence: the model's probability of each of them when it was chosen.
        confidence: geometric mean of those, the end of the text included.
    """

    text: str
    token_ids: list[int]
    token_confidence: list[float]
    confidence: float


class Inverter(Protocol):
    """Vectors in, texts out."""

    config: CheckpointConfig

    def invert(
        self, embeddings: np.ndarray, *, strategy: str = "confidence", steps: int = 8, seed: int = 0
    ) -> list[Inversion]:
        """Returns one inversion for each row of embeddings [N, D]."""
        ...


class DiffusionInverter:
    """Inverts with a `MaskedDenoiser`.

    Args:
        checkpoint: a loaded folder.
        batch_size: vectors decoded together.

    Raises:
        ValueError: batch_size is below 1.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int = 128) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        self.config = checkpoint.config
        self.model = checkpoint.model
        self.tokenizer = checkpoint.tokenizer
        self.vocabulary = checkpoint.vocabulary
        self.batch_size = batch_size

    def invert(
        self,
        embeddings: np.ndarray,
        *,
        strategy: str = "confidence",
        steps: int = 8,
        seed: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Recovers a text from each vector.

        Args:
            embeddings: [N, D] or [D] vectors of this checkpoint's encoder, at any scale.
            strategy: a decoder of `STRATEGIES`.
            steps: denoising passes, 1 to L; more is not better than L.
            seed: for decoders that sample.
            on_progress: called with the number of vectors done after each batch.

        Raises:
            ValueError: vectors that cannot be inverted, an unknown strategy, or steps below 1.
        """
        vectors = check_embeddings(embeddings, self.config.pairs.encoder.dim)
        return self.invert_unchecked(vectors, strategy=strategy, steps=steps, seed=seed, on_progress=on_progress)

    @torch.inference_mode()
    def invert_unchecked(
        self,
        vectors: np.ndarray,
        *,
        strategy: str = "confidence",
        steps: int = 8,
        seed: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """`invert` without the check of the vectors: the zero-embedding baseline needs it."""
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy {strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")
        if steps < 1:
            raise ValueError(f"steps is {steps}; give at least 1")
        device = next(self.model.parameters()).device
        inversions: list[Inversion] = []
        for start in range(0, len(vectors), self.batch_size):
            rows = vectors[start : start + self.batch_size]
            batch = torch.from_numpy(np.array(rows, dtype=np.float32, order="C"))  # a copy: rows may be read-only
            request = DecodingRequest(
                embedding=batch.to(device),
                length=self.config.pairs.seq_len,
                mask_id=self.config.model.mask_id,
                steps=steps,
                generator=torch.Generator(device).manual_seed(seed),
                other_id=self.vocabulary.other_id,
            )
            state = final_state(STRATEGIES[strategy](self.model, request))
            tokens = self.vocabulary.original(state.tokens.cpu().numpy()).tolist()
            inversions += [self._inversion(*row) for row in zip(tokens, state.confidence.tolist(), strict=True)]
            if on_progress is not None:
                on_progress(len(inversions))
        return inversions

    def _inversion(self, tokens: list[int], confidence: list[float]) -> Inversion:
        content = self.tokenizer.content(tokens)
        counted = np.asarray(confidence[: len(content) + 1], dtype=np.float64)
        mean = float(np.exp(np.log(np.maximum(counted, np.finfo(np.float32).tiny)).mean()))
        return Inversion(self.tokenizer.decode(content), content, confidence[: len(content)], mean)


def load_inverter(folder: str | Path, device: str = "cpu", batch_size: int = 128) -> DiffusionInverter:
    """Loads a checkpoint folder as an inverter.

    Raises:
        ValueError: the folder is no checkpoint that this version reads.
    """
    return DiffusionInverter(load_checkpoint(folder, device), batch_size)
