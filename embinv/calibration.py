"""What a confidence is worth: maps from it to probabilities, fitted on generations, kept in the checkpoint folder.

    calibration.json    `Calibrations`: for each way of decoding that was fitted, two increasing maps

A decoder's confidence is the model's own probability at the moment of choice; it is sure of tokens that turn out wrong.
On validation texts it is known how often, and that is what these maps say.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from embinv.data.folders import whole_file
from embinv.data.schema import reasons
from embinv.decoding.options import DecodingOptions
from embinv.metrics.calibration import fit_isotonic, rightness, share_right

FILE = "calibration.json"
NEARLY_RIGHT = 0.9  # share of the places of a text


class NothingToCalibrate(ValueError):
    """No confidence was there to fit anything on."""


class Curve(BaseModel):
    """An increasing map: linear between its knots, constant beyond them."""

    model_config = ConfigDict(extra="forbid")

    scores: list[float] = Field(min_length=1)
    probabilities: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _increasing(self) -> "Curve":
        if len(self.scores) != len(self.probabilities):
            raise ValueError(f"{len(self.scores)} scores and {len(self.probabilities)} probabilities")
        for name, values in (("scores", self.scores), ("probabilities", self.probabilities)):
            if not (np.diff(values) >= 0).all():
                raise ValueError(f"{name} do not ascend")
        if self.probabilities[0] < 0.0 or self.probabilities[-1] > 1.0:
            raise ValueError("a probability is outside [0, 1]")
        return self

    def __call__(self, scores: Sequence[float]) -> list[float]:
        """The probability of each score."""
        return np.interp(scores, self.scores, self.probabilities).tolist()


class Calibration(BaseModel):
    """The maps of one way of decoding."""

    model_config = ConfigDict(extra="forbid")

    strategy: str
    steps: int
    decoding: DecodingOptions
    rows: int = Field(description="validation texts that it was fitted on")
    token: Curve = Field(description="a token's confidence -> probability that it is right")
    text: Curve = Field(description="a text's confidence -> probability that at least 90% of it are right")

    def is_for(self, strategy: str, steps: int, decoding: DecodingOptions) -> bool:
        """Whether it was fitted on what is decoded this way."""
        return (self.strategy, self.steps, self.decoding) == (strategy, steps, decoding)


class Calibrations(BaseModel):
    """calibration.json."""

    model_config = ConfigDict(extra="forbid")

    weights: str = Field(default="", description="digest of the weights whose confidence this is")
    fitted: list[Calibration] = []

    def find(self, strategy: str, steps: int, decoding: DecodingOptions) -> Calibration | None:
        """That of exactly this way of decoding; another one's would claim what was not measured."""
        return next((each for each in self.fitted if each.is_for(strategy, steps, decoding)), None)

    def with_one(self, new: Calibration) -> "Calibrations":
        """These and a new one, in place of that of the same way."""
        others = [each for each in self.fitted if not each.is_for(new.strategy, new.steps, new.decoding)]
        return Calibrations(weights=self.weights, fitted=[*others, new])

    def save(self, folder: Path) -> None:
        """Writes FILE into a checkpoint folder, whole or not at all."""
        with whole_file(folder / FILE) as partial:
            partial.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Calibrations":
        """Reads FILE of a checkpoint folder; none are fitted where there is no such file, or one of other weights.

        Raises:
            ValueError: it cannot be read.
        """
        path, weights = folder / FILE, weights_digest(folder)
        if not path.exists():
            return cls(weights=weights)
        way_out = "delete it and run jobs/evaluate.py, which fits it anew"
        try:
            found = cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
            return found if found.weights == weights else cls(weights=weights)
        except ValidationError as error:
            raise ValueError(f"{path}: no calibrations ({reasons(error)}); {way_out}") from error
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); {way_out}") from error


def weights_digest(folder: Path) -> str:
    """Start of the SHA-256 of a checkpoint's weights."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fit(
    strategy: str,
    steps: int,
    decoding: DecodingOptions,
    originals: Sequence[Sequence[int]],
    recovered: Sequence[Sequence[int]],
    token_confidence: Sequence[Sequence[float]],
    confidence: Sequence[float],
) -> Calibration:
    """Fits both maps on texts that are known.

    Args:
        strategy: with `steps` and `decoding`, how the texts were recovered.
        steps: passes.
        decoding: the decoder's options.
        originals: content ids of N texts.
        recovered: content ids of what was recovered for each.
        token_confidence: of each recovered token.
        confidence: of each text.

    Raises:
        NothingToCalibrate: not one token was recovered.
    """
    right = [flag for x, y in zip(originals, recovered, strict=True) for flag in rightness(x, y)]
    sure = [value for row in token_confidence for value in row]
    if not sure:
        raise NothingToCalibrate("not one token was recovered from the validation texts")
    nearly = [share_right(x, y) >= NEARLY_RIGHT for x, y in zip(originals, recovered, strict=True)]
    token = fit_isotonic(np.asarray(sure), np.asarray(right, dtype=float))
    text = fit_isotonic(np.asarray(confidence), np.asarray(nearly, dtype=float))
    return Calibration(
        strategy=strategy,
        steps=steps,
        decoding=decoding,
        rows=len(originals),
        token=Curve(scores=token[0], probabilities=token[1]),
        text=Curve(scores=text[0], probabilities=text[1]),
    )
