"""What each family of models learns in a step, and how it is judged on held-out texts.

The loop, the log and the plot ask here; they know no family by name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from embinv.data.pairs import Pairs
from embinv.decoding.autoregressive import decode_greedily
from embinv.decoding.base import DecodingRequest, DecodingState
from embinv.decoding.confidence import decode_by_confidence
from embinv.training.correction import (
    denoised_correction_loss,
    edited,
    forced_correction_loss,
    rewritten,
    validate_edits,
    validate_rewriting,
)
from embinv.training.engine import Engine
from embinv.training.settings import TrainingSettings
from embinv.training.step import Draws, StepLoss, TokenIds, loss_of_draws
from embinv.training.teacher_forcing import forced_loss
from embinv.training.validation import Validation, validate, validate_writer


@dataclass(frozen=True)
class Objective:
    """One family's.

    Attributes:
        loss: of a part of a step: (engine, x_0 [B, L], embedding [B, D], ids, settings, draws of these texts).
        validate: (model, held-out texts, ids, passes of a generation, engine).
        decode: (model, token ids as pairs have them, embedding, ids, passes at most) -> the states of its generations;
            an inverter reads of the token ids nothing but their length L.
        by: what the parts are of, by which the loss is shown: times of the diffusion, or places in the text.
        measure: what held-out texts cost, as a log calls it.
        generation: how a text is written, as a log calls it.
    """

    loss: Callable[[Engine, Tensor, Tensor, TokenIds, TrainingSettings, Draws], StepLoss]
    validate: Callable[[Any, Pairs, TokenIds, int, Engine], Validation]
    decode: Callable[[Any, Tensor, Tensor, TokenIds, int], Iterator[DecodingState]]
    by: Literal["time", "place"]
    measure: str
    generation: str


Decode = Callable[[Any, DecodingRequest], Iterator[DecodingState]]


def _from_vectors(decode: Decode) -> Callable[[Any, Tensor, Tensor, TokenIds, int], Iterator[DecodingState]]:
    """A decoder of an inverter, as an objective has it."""

    def inverted(
        model: Any, token_ids: Tensor, embedding: Tensor, ids: TokenIds, steps: int
    ) -> Iterator[DecodingState]:
        return decode(model, ids.request(embedding, token_ids.shape[1], steps))

    return inverted


DENOISING = Objective(loss_of_draws, validate, _from_vectors(decode_by_confidence), "time", "NELBO", "from a full mask")
TEACHER_FORCING = Objective(
    forced_loss, validate_writer, _from_vectors(decode_greedily), "place", "NLL", "from left to right"
)
EDITING = Objective(denoised_correction_loss, validate_edits, edited, "time", "NLL", "after one correction")
REWRITING = Objective(forced_correction_loss, validate_rewriting, rewritten, "place", "NLL", "after one correction")
OBJECTIVES = {
    "mdlm": DENOISING,
    "backbone": DENOISING,
    "t5": TEACHER_FORCING,
    "mdlm_corrector": EDITING,
    "t5_corrector": REWRITING,
}
"""By the family that a model's config names."""
