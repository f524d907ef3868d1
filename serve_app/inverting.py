"""One checkpoint as the scheduler's model: a batch of vectors in, a step after each pass, and answers as they are sent.

No Ray here. Results are JSON already when they leave, so that the process that speaks HTTP only puts them together.

Shapes: B vectors of a batch, C candidates of each, D embedding, L length.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

import numpy as np
import torch

from embinv.calibration import weights_digest
from embinv.data.pieces import pieces
from embinv.decoding.base import DecodingState
from embinv.decoding.candidates import likeliest
from embinv.decoding.options import Choices
from embinv.inversion import Inversion
from embinv.inverter import TextInverter, load_inverter
from serve_app.batching import Step
from serve_app.schemas import CorrectionEvent, Description, PassEvent, RecoveredText, RecoveredToken, ShownToken

DIGITS = 6  # of a probability in an answer
TRIED = {"cpu": (8, 16, 32), "cuda": (32, 64, 128)}
"""Sizes of batches that are tried. Beyond these a CPU gains nothing (docs/LOG.md), and single requests wait longer."""
ROUNDS = 3  # of trials, from the smallest to the largest and back
NEARLY = 0.95  # of the best rate is as good, and then the smaller batch is quicker to answer


@dataclass(frozen=True)
class Way:
    """What vectors must agree in to go through the model together.

    Attributes:
        choices: how to decode.
        every: keep all candidates of a vector, for the encoder to choose from or to refine.
    """

    choices: Choices
    every: bool = False


@dataclass(frozen=True)
class Decoded:
    """What came of one vector.

    Attributes:
        inversions: one, or all its candidates.
        steps: passes in which it changed.
    """

    inversions: list[Inversion]
    steps: int


class ServedCheckpoint:
    """A loaded checkpoint.

    Args:
        folder: the checkpoint.
        device: "cpu" or "cuda".
        threads: CPU threads of a forward pass.
        max_batch_size: vectors that are decoded together; None finds it by trial when it warms up.

    Raises:
        ValueError: the folder is no checkpoint, or there is no such device.
    """

    def __init__(self, folder: str | Path, device: str, threads: int, max_batch_size: int | None) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: cuda, but this node has no CUDA device; set device: cpu, or add a GPU node")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # texts are decoded one at a time
        torch.set_num_threads(threads)
        self._tried = TRIED[device] if max_batch_size is None else ()
        self.inverter: TextInverter = load_inverter(folder, device, batch_size=max_batch_size or self._tried[-1])
        self.version = weights_digest(Path(folder))[:12]
        self._token = lru_cache(maxsize=None)(self._lone_token)

    @property
    def dim(self) -> int:
        """D."""
        return self.inverter.config.pairs.encoder.dim

    def warm_up(self) -> None:
        """Runs batches of the sizes that come first; the first pass of a shape is slow, and no caller should wait.

        And finds how many vectors to decode together, where nobody has said it.
        """
        for rows in sorted({1, 2, *(self._tried or (self.inverter.batch_size,))}):
            self._seconds(rows, steps=2)
        if self._tried:
            self.inverter.batch_size = best_batch(self._seconds, self._tried)

    def _seconds(self, rows: int, steps: int = 1) -> float:
        """Of inverting so many vectors."""
        began = time.perf_counter()
        self.inverter.invert(np.ones((rows, self.dim), dtype=np.float32), steps=steps)
        return time.perf_counter() - began

    def rows_at_once(self, way: Way) -> int:
        """How many vectors go together."""
        return self.inverter.rows_at_once(way.choices)

    def describe(self, encode: bool) -> Description:
        """What GET /encoders says of it."""
        config = self.inverter.config
        return Description(
            encoder=config.pairs.encoder.model,
            dim=self.dim,
            seq_len=config.pairs.seq_len,
            max_tokens=config.pairs.seq_len - 1,
            languages=[lang for lang in config.training.get("languages", []) if lang != "und"],
            strategies=list(self.inverter.strategies),
            version=self.version,
            figures={name: value for name, value in config.training.items() if name != "languages"},
            encode=encode,
        )

    def run(self, vectors: np.ndarray, way: Way, watched: list[bool]) -> Iterator[Step[list[ShownToken], Decoded]]:
        """Decodes a batch [B, D], see `serve_app.batching.Model`."""
        inverter, choices = self.inverter, way.choices
        states = (inverter.candidate_states if way.every else inverter.states)(vectors, choices)
        changed = np.zeros(len(vectors), dtype=np.int64)
        before: np.ndarray | int = inverter.mask_id
        state: DecodingState | None = None
        for state in states:
            tokens = state.tokens.cpu().numpy().reshape(len(vectors), -1)  # [B, (C x) L]
            changed += (tokens != before).any(axis=1)
            before = tokens
            yield Step(shown=self._shown(vectors, way, state, watched))
        assert state is not None, "a decoder makes one pass at least"
        inversions = inverter.read_candidates(state) if way.every else inverter.read(state, choices)
        count = len(inversions) // len(vectors)
        yield Step(
            results=[
                Decoded(inversions[row * count : (row + 1) * count], int(changed[row])) for row in range(len(vectors))
            ]
        )

    def _shown(
        self, vectors: np.ndarray, way: Way, state: DecodingState, watched: list[bool]
    ) -> list[list[ShownToken]]:
        """What those who watch see of each vector; nothing is made for the others."""
        if not any(watched):
            return []
        inverter = self.inverter
        if way.every:
            state = likeliest(inverter.request(vectors, way.choices), state)
        ids = state.tokens.cpu().numpy()
        hidden = ids == inverter.mask_id
        ids = inverter.vocabulary.original(np.where(hidden, 0, ids))
        return [
            self._places(ids[row].tolist(), hidden[row].tolist(), state.confidence[row].tolist()) if watches else []
            for row, watches in enumerate(watched)
        ]

    def _places(self, ids: list[int], hidden: list[bool], confidence: list[float]) -> list[ShownToken]:
        """The places of one text up to the first end of it that is known."""
        tokenizer = self.inverter.tokenizer
        ends = (tokenizer.eos_id, tokenizer.pad_id)
        length = next((i for i, token in enumerate(ids) if not hidden[i] and token in ends), len(ids))
        known = [None if hidden[place] else ids[place] for place in range(length)]
        return [
            ShownToken(text=text, confidence=None if text is None else round(sure, DIGITS))
            for text, sure in zip(pieces(known, tokenizer.decode), confidence, strict=False)
        ]

    def answer(self, inversion: Inversion, steps: int) -> bytes:
        """An inversion as JSON of a `RecoveredText`."""
        probabilities = inversion.token_probability or [None] * len(inversion.token_ids)
        said = zip(inversion.token_ids, inversion.token_confidence, probabilities, strict=True)
        return (
            RecoveredText.model_construct(
                text=inversion.text,
                confidence=round(inversion.confidence, DIGITS),
                probability=_rounded(inversion.probability),
                cosine=_rounded(inversion.cosine),
                encoder_calls=inversion.encoder_calls,
                steps=steps,
                tokens=[
                    RecoveredToken.model_construct(
                        id=id_, token=self._token(id_), confidence=round(sure, DIGITS), probability=_rounded(right)
                    )
                    for id_, sure, right in said
                ],
            )
            .model_dump_json()
            .encode()
        )

    def correction_event(self, index: int, step: int, best: Inversion) -> bytes:
        """JSON of a `CorrectionEvent`; `best` has its cosine and its encoder calls."""
        known = [False] * len(best.token_ids)
        return (
            CorrectionEvent.model_construct(
                index=index,
                step=step,
                text=best.text,
                cosine=_rounded(best.cosine),
                encoder_calls=best.encoder_calls,
                tokens=self._places(best.token_ids, known, best.token_confidence),
            )
            .model_dump_json()
            .encode()
        )

    def _lone_token(self, token_id: int) -> str:
        return str(self.inverter.tokenizer.tokenizer.decode([token_id]))


def best_batch(seconds: Callable[[int], float], sizes: Sequence[int]) -> int:
    """The smallest batch whose rate is nearly the best; medians of rounds, so that one slow moment decides nothing.

    Args:
        seconds: runs a batch of so many vectors.
        sizes: ascending.
    """
    spent: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(ROUNDS):
        for size in sizes[:: -1 if number % 2 else 1]:
            spent[size].append(seconds(size))
    rates = {size: size / median(times) for size, times in spent.items()}
    return next(size for size in sizes if rates[size] >= NEARLY * max(rates.values()))


def pass_event(index: int, step: int, tokens: list[ShownToken]) -> bytes:
    """JSON of a `PassEvent`."""
    return PassEvent.model_construct(index=index, step=step, tokens=tokens).model_dump_json().encode()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
