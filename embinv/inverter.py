"""The inverter: a checkpoint folder in, and for each vector the text it came from.

`Inverter` is what those see who only want texts. Both families, masked diffusion and T5, are a `TextInverter`: what
evaluation, serving and the command line do with one they do with the other. Inversion reads the encoder only where a
caller hands it over, to choose among candidates, and then the result says so.

Shapes: N vectors, C candidates of each, D embedding, L length.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import numpy as np
import torch

from embinv.checkpoint import Checkpoint, CheckpointConfig, load_checkpoint
from embinv.data.vectors import check_embeddings
from embinv.decoding.autoregressive import WRITERS
from embinv.decoding.base import DecodingRequest, DecodingState, final_state
from embinv.decoding.candidates import sample_candidates
from embinv.decoding.options import GREEDY, Choices, DecodingOptions
from embinv.decoding.rewriting import rewrite, rewrite_end
from embinv.decoding.strategies import STRATEGIES
from embinv.encoders.base import Encoder
from embinv.inversion import Inversion, choose_closest, read_texts, with_probabilities
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.reduced import ARITHMETIC, inference_precision

if TYPE_CHECKING:
    from embinv.models.t5_inverter import T5Inverter  # transformers' code of T5, which takes a second


class Inverter(Protocol):
    """Vectors in, texts out."""

    config: CheckpointConfig

    def invert(
        self,
        embeddings: np.ndarray,
        *,
        strategy: str | None = None,
        steps: int = 8,
        seed: int = 0,
        options: DecodingOptions | None = None,
        encoder: Encoder | None = None,
    ) -> list[Inversion]:
        """Returns one inversion for each row of embeddings [N, D]."""
        ...


class TextInverter(ABC):
    """What inverters of all families share: batches, seeds, texts and their probabilities.

    Args:
        checkpoint: a loaded folder.
        batch_size: vectors decoded together.
        precision: float32, bfloat16 (rounds what products read), or auto: bfloat16 where the device multiplies in it.

    Attributes:
        strategies: names of its decoders, the usual one first.
        precision: float32 or bfloat16.
        mask_id: id of a token that is not known yet.

    Raises:
        ValueError: batch_size is below 1, or the precision is unknown.
    """

    strategies: ClassVar[tuple[str, ...]]

    def __init__(self, checkpoint: Checkpoint, batch_size: int, precision: str) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give at least 1")
        self.config = checkpoint.config
        self.device = next(checkpoint.model.parameters()).device
        self.precision = inference_precision(precision, str(self.device))
        self.mask_id = checkpoint.config.model.mask_id
        self.tokenizer = checkpoint.tokenizer
        self.vocabulary = checkpoint.vocabulary
        self.calibrations = checkpoint.calibrations
        self.end_ids = self.vocabulary.ends(self.tokenizer.eos_id, self.tokenizer.pad_id)
        self.batch_size = batch_size

    def invert(
        self,
        embeddings: np.ndarray,
        *,
        strategy: str | None = None,
        steps: int = 8,
        seed: int = 0,
        options: DecodingOptions | None = None,
        encoder: Encoder | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Recovers a text from each vector.

        Args:
            embeddings: [N, D] or [D] vectors of this checkpoint's encoder, at any scale.
            strategy: one of `strategies`; None takes the first.
            steps: denoising passes at most; of `confidence` and `sequential`, which write a token once, L at most. A
                T5 writes a token each pass until the text ends, whatever is said here.
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
        strategy: str | None = None,
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
        choices = Choices(strategy or self.strategies[0], steps, seed, options or DecodingOptions())
        self.require(choices)
        if encoder is not None and choices.strategy != "candidates":
            raise ValueError(f"strategy {choices.strategy} has no candidates for an encoder to choose from")
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

    def require(self, choices: Choices) -> None:
        """Refuses a way of decoding that is another family's.

        Raises:
            ValueError: the message names those that there are.
        """
        if choices.strategy not in self.strategies:
            raise ValueError(
                f"strategy {choices.strategy} is none of this inverter's; choose one of {', '.join(self.strategies)}"
            )

    @abstractmethod
    def states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        """Yields the states [B, L] of one batch of vectors [B, D], one after each pass.

        Args:
            vectors: checked vectors, as many as are decoded together.
            choices: how.
            streams: numbers that tell equal vectors apart, where their draws are to differ.
        """

    @abstractmethod
    def candidate_states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        """`states` of strategy candidates, with all C candidates of each vector in a row: [B x C, L]."""

    @abstractmethod
    def passes(self, strategy: str, steps: int) -> int:
        """How many passes a strategy makes of `steps` at most."""

    @abstractmethod
    def rewrite(self, request: DecodingRequest, tokens: torch.Tensor, shares: torch.Tensor) -> Iterator[DecodingState]:
        """Writes parts of texts anew under their vectors, by sampling; see `embinv.correcting`.

        Args:
            request: of `request`, for B vectors.
            tokens: [B, L] int64, texts with their ends, in the model's numbering.
            shares: [B], about how much of each text is written anew; what the vocabulary lacks is in any case.
        """

    def read(self, state: DecodingState, choices: Choices) -> list[Inversion]:
        """The texts of a batch whose tokens are all known, with their probabilities if this way was calibrated."""
        passes = self.passes(choices.strategy, choices.steps)
        calibration = self.calibrations.find(choices.strategy, passes, choices.options)
        return with_probabilities(self._texts(state), calibration)

    def read_candidates(self, state: DecodingState) -> list[Inversion]:
        """The texts of all candidates; without probabilities, since those are of texts that the model itself chose."""
        return self._texts(state)

    def request(self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None) -> DecodingRequest:
        """What a decoder is asked for vectors [B, D]."""
        batch = torch.from_numpy(np.array(vectors, dtype=np.float32, order="C"))  # a copy: rows may be read-only
        return DecodingRequest(
            embedding=batch.to(self.device),
            length=self.config.pairs.seq_len,
            mask_id=self.mask_id,
            steps=self.passes(choices.strategy, choices.steps),
            seed=choices.seed,
            other_id=self.vocabulary.other_id,
            end_ids=self.end_ids,
            options=choices.options,
            streams=streams,
        )

    def _texts(self, state: DecodingState) -> list[Inversion]:
        return read_texts(state, self.tokenizer, self.vocabulary)


class DiffusionInverter(TextInverter):
    """Inverts with a `MaskedDenoiser`; see `TextInverter`."""

    strategies = tuple(STRATEGIES)

    def __init__(self, checkpoint: Checkpoint, batch_size: int = 128, precision: str = "auto") -> None:
        super().__init__(checkpoint, batch_size, precision)
        self.model: MaskedDenoiser = ARITHMETIC[self.precision](checkpoint.model)

    @torch.inference_mode()
    def states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        yield from STRATEGIES[choices.strategy](self.model, self.request(vectors, choices, streams))

    @torch.inference_mode()
    def candidate_states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        yield from sample_candidates(self.model, self.request(vectors, choices, streams))

    def rewrite(self, request: DecodingRequest, tokens: torch.Tensor, shares: torch.Tensor) -> Iterator[DecodingState]:
        yield from rewrite(self.model, request, tokens, shares)

    def passes(self, strategy: str, steps: int) -> int:
        return min(steps, self.config.pairs.seq_len) if strategy in GREEDY else steps


class T5TextInverter(TextInverter):
    """Inverts with a `T5Inverter`; see `TextInverter`."""

    strategies = tuple(WRITERS)

    def __init__(self, checkpoint: Checkpoint, batch_size: int = 128, precision: str = "auto") -> None:
        super().__init__(checkpoint, batch_size, precision)
        self.model = cast("T5Inverter", checkpoint.model)
        if self.precision == "bfloat16":
            self.model = copy.deepcopy(self.model).to(torch.bfloat16)

    @torch.inference_mode()
    def states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        yield from WRITERS[choices.strategy](self.model, self.request(vectors, choices, streams))

    def candidate_states(
        self, vectors: np.ndarray, choices: Choices, streams: tuple[int, ...] | None = None
    ) -> Iterator[DecodingState]:
        raise AssertionError("`require` lets no strategy through that has candidates")

    def rewrite(self, request: DecodingRequest, tokens: torch.Tensor, shares: torch.Tensor) -> Iterator[DecodingState]:
        yield from rewrite_end(self.model, request, tokens, shares)

    def passes(self, strategy: str, steps: int) -> int:
        return self.config.pairs.seq_len


def load_inverter(
    folder: str | Path, device: str = "cpu", batch_size: int = 128, precision: str = "auto"
) -> TextInverter:
    """Loads a checkpoint folder as an inverter of its family, see `TextInverter`.

    Raises:
        ValueError: the folder is no checkpoint that this version reads, or an argument is out of its range.
    """
    checkpoint = load_checkpoint(folder, device)
    if checkpoint.config.corrects:
        raise ValueError(f"--checkpoint {folder}: holds a corrector; give an inverter here, and this as --corrector")
    kind = T5TextInverter if checkpoint.config.family == "t5" else DiffusionInverter
    return kind(checkpoint, batch_size, precision)
