"""The inverter: a checkpoint folder in, and for each vector the text it came from.

`Inverter` is what evaluation, serving and the command line see; the diffusion inverter is one. Inversion reads the
encoder only where a caller hands it over, to choose among candidates, and then the result says so.

Shapes: N vectors, C candidates of each, D embedding, L length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from embinv.calibration import Calibration
from embinv.checkpoint import Checkpoint, CheckpointConfig, load_checkpoint
from embinv.data.vectors import check_embeddings
from embinv.decoding.base import DecodingRequest, DecodingState, final_state
from embinv.decoding.candidates import sample_candidates
from embinv.decoding.options import GREEDY, Choices, DecodingOptions
from embinv.decoding.strategies import STRATEGIES
from embinv.encoders.base import Encoder
from embinv.models.reduced import ARITHMETIC, inference_precision


@dataclass(frozen=True)
class Inversion:
    """What was recovered from one vector.

    Attributes:
        text: the recovered text.
        token_ids: its content tokens.
        token_confidence: the model's probability of each of them when it was chosen.
        confidence: geometric mean of those, the end of the text included.
        cosine: between the vector and the text's own, where the encoder chose this text among candidates.
        token_probability: probability that each token is right, calibrated on validation texts; None if this way of
            decoding was not calibrated (`embinv.calibration`).
        probability: that at least 90% of the text is right, likewise.
    """

    text: str
    token_ids: list[int]
    token_confidence: list[float]
    confidence: float
    cosine: float | None = None
    token_probability: list[float] | None = None
    probability: float | None = None


class Inverter(Protocol):
    """Vectors in, texts out."""

    config: CheckpointConfig

    def invert(
        self,
        embeddings: np.ndarray,
        *,
        strategy: str = "confidence",
        steps: int = 8,
        seed: int = 0,
        options: DecodingOptions | None = None,
        encoder: Encoder | None = None,
    ) -> list[Inversion]:
        """Returns one inversion for each row of embeddings [N, D]."""
        ...


class DiffusionInverter:
    """Inverts with a `MaskedDenoiser`.

    Args:
        checkpoint: a loaded folder.
        batch_size: vectors decoded together.
        precision: float32, bfloat16 (rounds what products read), or auto: bfloat16 where the device multiplies in it.

    Attributes:
        precision: float32 or bfloat16.

    Raises:
        ValueError: batch_size is below 1, or the precision is unknown.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int = 128, precision: str = "auto") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        self.config = checkpoint.config
        self.precision = inference_precision(precision, str(next(checkpoint.model.parameters()).device))
        self.model = ARITHMETIC[self.precision](checkpoint.model)
        self.tokenizer = checkpoint.tokenizer
        self.vocabulary = checkpoint.vocabulary
        self.calibrations = checkpoint.calibrations
        self.end_ids = self.vocabulary.ends(self.tokenizer.eos_id, self.tokenizer.pad_id)
        self.batch_size = batch_size

    def invert(
        self,
        embeddings: np.ndarray,
        *,
        strategy: str = "confidence",
        steps: int = 8,
        seed: int = 0,
        options: DecodingOptions | None = None,
        encoder: Encoder | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Recovers a text from each vector.

        Args:
            embeddings: [N, D] or [D] vectors of this checkpoint's encoder, at any scale.
            strategy: a decoder of `STRATEGIES`.
            steps: denoising passes at most; of `confidence` and `sequential`, which write a token once, L at most.
            seed: for decoders that sample; what is drawn for a vector depends on it and on the vector's numbers alone.
            options: how the decoder does what it does; None takes the defaults.
            encoder: re-encodes the candidates of strategy `candidates`, so that the closest is chosen and not the one
                that the model finds likeliest.
            on_progress: called with the number of vectors done after each batch.

        Raises:
            ValueError: vectors that cannot be inverted, an unknown strategy, an option that it does not read, steps
                below 1, or an encoder where there are no candidates.
        """
        vectors = check_embeddings(embeddings, self.config.pairs.encoder.dim)
        return self.invert_unchecked(
            vectors,
            strategy=strategy,
            steps=steps,
            seed=seed,
            options=options,
            encoder=encoder,
            on_progress=on_progress,
        )

    @torch.inference_mode()
    def invert_unchecked(
        self,
        vectors: np.ndarray,
        *,
        strategy: str = "confidence",
        steps: int = 8,
        seed: int = 0,
        options: DecodingOptions | None = None,
        encoder: Encoder | None = None,
        distinct: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """`invert` without the check of the vectors, and with `distinct` draws for equal ones.

        The zero-embedding baseline needs both.
        """
        choices = Choices(strategy, steps, seed, options or DecodingOptions())
        if encoder is not None and strategy != "candidates":
            raise ValueError(f"strategy {strategy} has no candidates for an encoder to choose from; take candidates")
        inversions: list[Inversion] = []
        size = self.rows_at_once(choices)
        for start in range(0, len(vectors), size):
            rows = vectors[start : start + size]
            streams = tuple(range(start, start + len(rows))) if distinct else None
            if encoder is None:
                inversions += self.read(final_state(self.states(rows, choices, streams)), choices)
            else:
                candidates = self.read_candidates(final_state(self.candidate_states(rows, choices, streams)))
                own = encoder.encode([candidate.text or " " for candidate in candidates])
                inversions += choose_closest(rows, candidates, own)
            if on_progress is not None:
                on_progress(len(inversions))
        return inversions

    def rows_at_once(self, choices: Choices) -> int:
        """How many vectors are decoded together; each candidate counts as one."""
        return max(1, self.batch_size // choices.samples)

    @torch.inference_mode()
    def states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        """Yields the states [B, L] of one batch of vectors [B, D], one after each pass.

        Args:
            vectors: checked vectors, as many as are decoded together.
            choices: how.
            streams: numbers that tell equal vectors apart, where their draws are to differ.
        """
        yield from STRATEGIES[choices.strategy](self.model, self.request(vectors, choices, streams))

    @torch.inference_mode()
    def candidate_states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        """`states` of strategy candidates, with all C candidates of each vector in a row: [B x C, L]."""
        yield from sample_candidates(self.model, self.request(vectors, choices, streams))

    def read(self, state: DecodingState, choices: Choices) -> list[Inversion]:
        """The texts of a batch whose tokens are all known, with their probabilities if this way was calibrated."""
        passes = self.passes(choices.strategy, choices.steps)
        calibration = self.calibrations.find(choices.strategy, passes, choices.options)
        return with_probabilities(self._texts(state), calibration)

    def read_candidates(self, state: DecodingState) -> list[Inversion]:
        """The texts of all candidates; without probabilities, since those are of texts that the model itself chose."""
        return self._texts(state)

    def passes(self, strategy: str, steps: int) -> int:
        """How many passes a strategy makes of `steps` at most."""
        return min(steps, self.config.pairs.seq_len) if strategy in GREEDY else steps

    def request(self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None) -> DecodingRequest:
        """What a decoder is asked for vectors [B, D]."""
        batch = torch.from_numpy(np.array(vectors, dtype=np.float32, order="C"))  # a copy: rows may be read-only
        return DecodingRequest(
            embedding=batch.to(next(self.model.parameters()).device),
            length=self.config.pairs.seq_len,
            mask_id=self.config.model.mask_id,
            steps=self.passes(choices.strategy, choices.steps),
            seed=choices.seed,
            other_id=self.vocabulary.other_id,
            end_ids=self.end_ids,
            options=choices.options,
            streams=streams,
        )

    def _texts(self, state: DecodingState) -> list[Inversion]:
        tokens = self.vocabulary.original(state.tokens.cpu().numpy()).tolist()
        return [self._inversion(*row) for row in zip(tokens, state.confidence.tolist(), strict=True)]

    def _inversion(self, tokens: list[int], confidence: list[float]) -> Inversion:
        content = self.tokenizer.content(tokens)
        counted = np.asarray(confidence[: len(content) + 1], dtype=np.float64)
        mean = float(np.exp(np.log(np.maximum(counted, np.finfo(np.float32).tiny)).mean()))
        return Inversion(self.tokenizer.decode(content), content, confidence[: len(content)], mean)


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


def load_inverter(
    folder: str | Path, device: str = "cpu", batch_size: int = 128, precision: str = "auto"
) -> DiffusionInverter:
    """Loads a checkpoint folder as an inverter, see `DiffusionInverter`.

    Raises:
        ValueError: the folder is no checkpoint that this version reads, or an argument is out of its range.
    """
    return DiffusionInverter(load_checkpoint(folder, device), batch_size, precision)
