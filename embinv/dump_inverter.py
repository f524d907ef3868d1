"""How a dump is to be inverted, as plain values that travel to workers, and what then inverts its vectors.

One `DumpInverter` stands in each process: an inverter, and the encoder and corrector where they are asked for. The
encoder is read only to say or to lower the distance between a vector and that of its text, and the texts say so.

Shapes: n vectors, D embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from embinv.calibration import weights_digest
from embinv.correcting import refined
from embinv.data.dumps.settings import DumpSettings
from embinv.decoding.options import Choices, DecodingOptions
from embinv.dump_texts import DumpRun
from embinv.encoders.base import Encoder
from embinv.encoders.trust import open_told_encoder
from embinv.inversion import Inversion
from embinv.inverter import TextInverter, load_inverter
from embinv.models.reduced import Precision
from embinv.trained_corrector import TrainedCorrector, load_corrector


class HowToInvert(BaseModel):
    """What a command line asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    strategy: str | None = Field(default=None, description="None: the first of the inverter's")
    steps: int = 8
    options: DecodingOptions = DecodingOptions()
    seed: int = 0
    device: str = "cpu"
    batch_size: int = 128
    precision: Precision = "auto"
    cosine: bool = Field(default=False, description="encode what was recovered, and say how near it is")
    refine_steps: int = 0
    refine_beam: int = 4
    corrector: str | None = None


class DumpInverter:
    """Inverts vectors as `how` says.

    Args:
        how: what is wanted.

    Attributes:
        on_rows: called with the number of vectors done of those that it was given, every now and then.

    Raises:
        ValueError: checkpoint, corrector or encoder cannot be loaded, an option cannot be used, or a corrector is given
            that nobody asks.
    """

    def __init__(self, how: HowToInvert) -> None:
        if how.corrector is not None and not how.refine_steps:
            raise ValueError("--corrector is asked in refinement alone; give --refine-steps N with it, such as 5")
        self.how = how
        self.on_rows: Callable[[int], None] = lambda rows: None
        self.inverter: TextInverter = load_inverter(how.checkpoint, how.device, how.batch_size, how.precision)
        self.strategy = how.strategy or self.inverter.strategies[0]
        self.inverter.require(Choices(self.strategy, how.steps, how.seed, how.options))
        recipe = self.inverter.config.pairs
        asks = how.cosine or how.refine_steps > 0
        self.encoder: Encoder | None = open_told_encoder(recipe.encoder, device=how.device) if asks else None
        self.corrector: TrainedCorrector | None = None
        if how.corrector is not None:
            self.corrector = load_corrector(how.corrector, recipe, how.device, how.batch_size, how.precision, how.seed)

    def run(self, dump: str, settings: DumpSettings, window_rows: int) -> DumpRun:
        """What decides the texts; weights and calibration are told by digests, so that a checkpoint may move."""
        how, inverter = self.how, self.inverter
        passes = inverter.passes(self.strategy, how.steps)
        calibration = inverter.calibrations.find(self.strategy, passes, how.options)
        fitted = None if calibration is None else sha256(calibration.model_dump_json().encode()).hexdigest()[:16]
        return DumpRun(
            dump=dump,
            settings=settings.model_dump(mode="json"),
            weights=weights_digest(Path(how.checkpoint)),
            calibration=fitted,
            strategy=self.strategy,
            steps=how.steps,
            options=how.options,
            seed=how.seed,
            precision=how.precision,
            cosine=how.cosine,
            refine_steps=how.refine_steps,
            refine_beam=how.refine_beam,
            corrector=None if how.corrector is None else weights_digest(Path(how.corrector)),
            window_rows=window_rows,
        )

    def __call__(self, vectors: np.ndarray) -> Sequence[Inversion]:
        """Returns an inversion of each row [n, D]; all of them can be inverted."""
        how = self.how
        found = self.inverter.invert_unchecked(
            vectors,
            strategy=self.strategy,
            steps=how.steps,
            seed=how.seed,
            options=how.options,
            on_progress=None if how.refine_steps else self.on_rows,
        )
        if self.encoder is None:
            return found
        if how.refine_steps:
            return refined(
                self.inverter,
                vectors,
                found,
                self.encoder,
                how.refine_steps,
                how.refine_beam,
                self.corrector,
                seed=how.seed,
                on_progress=self.on_rows,
            )
        return with_cosines(vectors, found, self.encoder)


def with_cosines(vectors: np.ndarray, found: Sequence[Inversion], encoder: Encoder) -> list[Inversion]:
    """The same inversions with the cosine between each vector [n, D] and that of its text, and the calls it took."""
    if not found:
        return []
    own = encoder.encode([each.text or " " for each in found])
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (vectors * own).sum(axis=1) / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(own, axis=1))
    return [replace(each, cosine=own, encoder_calls=1) for each, own in zip(found, cosines.tolist(), strict=True)]
