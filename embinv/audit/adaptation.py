"""The attacker who adapts: he protects texts of his own in the same way, and learns to read what comes out.

Two things are learnt from his texts, whose vectors he has both as the encoder gives them and as they would lie in the
store. A linear map brings stored vectors back towards the encoder's space: it undoes a turn of the axes, and shrinks
what is noise; which map is chosen by cross-validation, none at all among them. Then the inverter goes on from the
checkpoint's weights on vectors that were brought back so. He keeps what he trained if it reads texts that he held back
no worse than the checkpoint does. The number of steps decides, not a clock: the same seed gives the same attacker.

He can protect texts only if he may write to the store, or knows how it is made; so this is what a defence is worth
against those who know it. Each of his texts is protected once, so a noise does not change from pass to pass.

Shapes: K texts of the attacker, N vectors, D embedding.
"""

import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from embinv.calibration import Calibrations
from embinv.checkpoint import Checkpoint
from embinv.data.pairs import Pairs
from embinv.inverter import DiffusionInverter, T5TextInverter, TextInverter
from embinv.models.inverter_model import InverterModel
from embinv.spaces.choosing import CANDIDATES, choose_map
from embinv.spaces.linear import LinearMap
from embinv.training.ema import EMA
from embinv.training.engine import LocalEngine
from embinv.training.loop import RunState, run
from embinv.training.objective import OBJECTIVES
from embinv.training.optimizer import build_optimizer
from embinv.training.precision import resolve_precision
from embinv.training.settings import TrainingSettings
from embinv.training.step import TokenIds

MAPS = ("unchanged", "procrustes", "ridge 0.0001", "ridge 0.001", "ridge 0.01", "ridge 0.1")


class AdaptationSettings(BaseModel):
    """How long and how fast the attacker learns."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(default=70, ge=0, description="optimizer steps; about a minute for the demo's model on 2 cores")
    batch_size: int = Field(default=64, gt=0, description="texts in a step")
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = Field(default=4e-4, gt=0, description="AdamW's; at most 1e-4 for a T5 or a backbone")
    muon_learning_rate: float = Field(default=2e-3, gt=0, description="Muon's")
    held_back: int = Field(default=128, gt=0, description="of his texts, a tenth at most, to judge the training by")


@dataclass(frozen=True)
class Adapted:
    """An attacker who has adapted to one defence.

    Attributes:
        inverter: reads what `back` gives.
        back: from what is seen of the store towards the encoder's space.
        back_by: name of the map among `MAPS`.
        kept: whether the inverter is the trained one; otherwise it is the checkpoint's.
    """

    inverter: TextInverter
    back: LinearMap
    back_by: str
    kept: bool

    def read(self, seen: np.ndarray) -> np.ndarray:
        """What his inverter is given for [N, D] vectors as they are seen: [N, D] float32."""
        return self.back(seen)


def adapt(
    checkpoint: Checkpoint,
    own: Pairs,
    seen: np.ndarray,
    settings: AdaptationSettings,
    seed: int,
    batch_size: int = 128,
    precision: str = "auto",
) -> Adapted:
    """Trains an attacker.

    Args:
        checkpoint: where he starts; it stays as it is.
        own: his K texts, with the tokenizer's ids and the encoder's vectors.
        seen: [K, D] the same as they are seen in a defended store.
        settings: how long and how fast; with 0 steps only the map back is learnt.
        seed: of the order of texts, of times and masks.
        batch_size: of the inverter.
        precision: of the inverter.

    Raises:
        ValueError: the checkpoint is a corrector's, there are too few texts for a step, or training went astray.
    """
    if checkpoint.config.corrects:
        raise ValueError("the attacker starts from an inverter, and this checkpoint is a corrector's; give an inverter")
    held_back = texts_held_back(len(own), settings)
    places = np.arange(len(own))
    first, rest = places[:held_back], places[held_back:]
    known = rest[seen[rest].any(axis=1)]  # a row of zeros says nothing about the space
    chosen = choose_map(seen[known], own.embeddings[known], seed, {name: CANDIDATES[name] for name in MAPS})
    trained = None
    if settings.steps:
        brought = replace(own, embeddings=chosen.map(seen).astype(np.float16)).renumbered(checkpoint.vocabulary)
        trained = _trained(checkpoint, brought.take(rest), brought.take(first), settings, seed)
    model = copy.deepcopy(checkpoint.model) if trained is None else trained
    kind = T5TextInverter if checkpoint.config.family == "t5" else DiffusionInverter
    changed = replace(checkpoint, model=model, calibrations=Calibrations())  # a confidence is worth something else now
    return Adapted(kind(changed, batch_size, precision), chosen.map, chosen.name, trained is not None)


def fitting(settings: AdaptationSettings, texts: int) -> AdaptationSettings:
    """The settings with steps as small as the attacker's texts ask for, unless their size was given."""
    room = texts - min(settings.held_back, max(1, texts // 10))
    given = "batch_size" in settings.model_fields_set
    if given or not settings.steps or not 0 < room < settings.batch_size:
        return settings
    return settings.model_copy(update={"batch_size": room})


def texts_held_back(texts: int, settings: AdaptationSettings) -> int:
    """How many of his texts the attacker judges his training by.

    Raises:
        ValueError: the others do not fill a step.
    """
    held_back = min(settings.held_back, max(1, texts // 10))
    if settings.steps and texts - held_back < settings.batch_size:
        raise ValueError(
            f"{texts} texts of the attacker's own, less {held_back} held back, do not fill a step of "
            f"{settings.batch_size}; give more, lower adaptation.batch_size, or set adaptation.steps 0"
        )
    return held_back


def _trained(
    checkpoint: Checkpoint, training: Pairs, held_back: Pairs, settings: AdaptationSettings, seed: int
) -> InverterModel | None:
    """The average of the weights after the steps, as a training keeps it; None if it reads worse than before.

    Pairs have the model's token ids.
    """
    model = copy.deepcopy(checkpoint.model)
    assert isinstance(model, InverterModel)
    model.train().requires_grad_(True)
    device = next(model.parameters()).device
    chosen = TrainingSettings(
        max_steps=settings.steps,
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        muon_learning_rate=settings.muon_learning_rate,
        ema_decay=0.99,
        device="cuda" if device.type == "cuda" else "cpu",
        compile=False,
        validations=1,
        seed=seed,
    )
    recipe, vocabulary = checkpoint.config.pairs, checkpoint.vocabulary
    ends = vocabulary.ends(recipe.eos_id, recipe.pad_id)
    ids = TokenIds(checkpoint.config.model.mask_id, *ends, vocabulary.other_id)
    ema = EMA(model, chosen.ema_decay, chosen.ema_share)
    engine = LocalEngine(
        model,
        build_optimizer(model, chosen),
        clipping=chosen.gradient_clipping,
        device=str(device),
        precision=resolve_precision(chosen.precision, str(device)),
    )
    validate, state = OBJECTIVES[checkpoint.config.family].validate, RunState()
    before = validate(ema.model, held_back, ids, chosen.validation_steps, engine).token_accuracy
    with torch.random.fork_rng():  # the loop seeds dropout
        for _ in run(engine, ema, training, held_back, ids, chosen, state):
            pass
    return ema.model if state.best >= before else None
