"""A checkpoint of a corrector, as `embinv.decoding.refine` asks it: it sees hypotheses and how far they are off.

A T5 gives its likeliest texts by a beam, a denoiser the correction by its likeliest tokens and others by sampling.

Shapes: M hypotheses, D embedding, L length.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embinv.checkpoint import Checkpoint, CheckpointConfig, load_checkpoint
from embinv.data.schema import PairsRecipe
from embinv.decoding.autoregressive import best_texts
from embinv.decoding.base import DecodingRequest, DecodingState, final_state
from embinv.decoding.editing import edit, edit_at_once
from embinv.decoding.options import DecodingOptions
from embinv.inversion import Inversion, read_texts, text_ids, text_stream
from embinv.models.evidence import evidence
from embinv.models.reduced import ARITHMETIC, inference_precision
from embinv.training.correction import OfHypotheses

PASSES = 4  # of a denoiser that fills what it hid, after the one that says what is wrong


class TrainedCorrector:
    """Proposes better texts with a `CorrectingMDLM` or a `T5Corrector`.

    Args:
        checkpoint: a loaded folder.
        batch_size: texts written together.
        precision: of the denoiser, as an inverter's; a T5 computes in float32.
        seed: of what a denoiser draws; beside it, proposals depend on the vectors and the hypothesis alone.

    Raises:
        ValueError: the precision is unknown.
    """

    def __init__(self, checkpoint: Checkpoint, batch_size: int = 128, precision: str = "auto", seed: int = 0) -> None:
        assert checkpoint.config.corrects, "see require_corrector"
        self.config = checkpoint.config
        self._tokenizer, self._vocabulary = checkpoint.tokenizer, checkpoint.vocabulary
        self._ends = self._vocabulary.ends(self._tokenizer.eos_id, self._tokenizer.pad_id)
        self._device = next(checkpoint.model.parameters()).device
        self._writes = checkpoint.config.family == "t5_corrector"
        chosen = inference_precision(precision, str(self._device))
        self._model: Any = checkpoint.model if self._writes else ARITHMETIC[chosen](checkpoint.model)
        self._batch_size, self._seed = batch_size, seed

    def with_seed(self, seed: int) -> "TrainedCorrector":
        """The same corrector, which draws by another seed."""
        other = copy.copy(self)
        other._seed = seed
        return other

    @torch.inference_mode()
    def propose(
        self, targets: np.ndarray, texts: list[str], own: np.ndarray, count: int
    ) -> Sequence[Sequence[Inversion]]:
        """See `embinv.decoding.refine.Corrector`; of what a denoiser kept, the confidence is that it is right."""
        hypotheses = text_ids(texts, self._tokenizer, self._vocabulary, self.config.pairs.seq_len)  # [M, L]
        found: list[list[Inversion]] = []
        size = max(1, self._batch_size // count)
        for start in range(0, len(texts), size):
            rows = slice(start, start + size)
            wanted, known = (torch.from_numpy(np.array(each[rows], dtype=np.float32)) for each in (targets, own))
            both = evidence(wanted, known).to(self._device)  # [m, 2 D]
            part, streams = hypotheses[rows].to(self._device), [text_stream(text) for text in texts[rows]]
            write = self._written if self._writes else self._edited
            inversions = read_texts(write(both, part, streams, count), self._tokenizer, self._vocabulary)
            found += [inversions[place : place + count] for place in range(0, len(inversions), count)]
        return found

    def _written(self, known: Tensor, hypotheses: Tensor, streams: list[int], count: int) -> DecodingState:
        """[M x count, L] by a T5, which draws nothing."""
        request = self._request(known, streams, DecodingOptions(beams=count))
        return best_texts(OfHypotheses(self._model, hypotheses), request)

    def _edited(self, known: Tensor, hypotheses: Tensor, streams: list[int], count: int) -> DecodingState:
        """[M x count, L] by a denoiser."""
        said = [edit_at_once(self._model, self._request(known, streams), hypotheses)]
        for place in range(1, count):
            # A hypothesis of the same vector that was corrected before gets other draws.
            request = self._request(known, [stream + place for stream in streams])
            said.append(final_state(edit(self._model, request, hypotheses)))
        tokens = torch.stack([state.tokens for state in said], dim=1).flatten(0, 1)
        sure = torch.stack([state.confidence for state in said], dim=1).flatten(0, 1)
        return DecodingState(tokens, sure, PASSES)

    def _request(self, known: Tensor, streams: list[int], options: DecodingOptions | None = None) -> DecodingRequest:
        return DecodingRequest(
            known,
            self.config.pairs.seq_len,
            self.config.model.mask_id,
            PASSES,
            self._seed,
            self._vocabulary.other_id,
            self._ends,
            options or DecodingOptions(),
            tuple(streams),
        )


def load_corrector(
    folder: str | Path,
    pairs: PairsRecipe,
    device: str = "cpu",
    batch_size: int = 128,
    precision: str = "auto",
    seed: int = 0,
) -> TrainedCorrector:
    """Loads a checkpoint folder as a corrector.

    Args:
        folder: of a checkpoint that was trained with `model.corrector`.
        pairs: recipe of the inverter (`config.pairs`) whose texts are to be corrected.
        device: cpu or cuda.
        batch_size: see `TrainedCorrector`; as the rest.
        precision: as there.
        seed: as there.

    Raises:
        ValueError: the folder is no checkpoint that this version reads, one of an inverter, or of another recipe.
    """
    try:
        checkpoint = load_checkpoint(folder, device)
    except ValueError as error:
        raise ValueError(f"corrector {folder}: {str(error).removeprefix(f'--checkpoint {folder}: ')}") from error
    require_corrector(folder, checkpoint.config, pairs)
    return TrainedCorrector(checkpoint, batch_size, precision, seed)


def require_corrector(folder: str | Path, config: CheckpointConfig, pairs: PairsRecipe) -> None:
    """Refuses a checkpoint that cannot correct what an inverter of this recipe writes.

    Raises:
        ValueError: it is an inverter's, or its encoder, tokenizer or length differ; the message names the folder.
    """
    if not config.corrects:
        raise ValueError(
            f"corrector {folder}: holds an inverter; train a corrector with model.corrector=true on what "
            "jobs/hypotheses.py makes, and give that"
        )
    if differing := config.pairs.differences(pairs):
        raise ValueError(f"corrector {folder}: is of other pairs than the inverter: {'; '.join(differing)}")
