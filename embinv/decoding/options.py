"""How decoders do what they do: the settings of all of them, checked once. No tensor here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

Strategy = Literal["confidence", "sequential", "euler", "remasking", "two_stage", "candidates", "greedy", "beam"]
"""Names of the decoders; `embinv.decoding.strategies` and `embinv.decoding.autoregressive` have what they name."""
STRATEGY_NAMES: tuple[str, ...] = get_args(Strategy)
Order = Literal["confidence", "margin", "entropy"]
Reveal = Literal["linear", "cosine"]
Remasking = Literal["threshold", "probability", "remdm-cap", "remdm-rescale", "remdm-confidence", "remdm-loop"]
Sampler = Literal["euler", "remasking", "two_stage"]

COLDEST = 1e-3  # a temperature below it says the same as 0, or overflows

_SAMPLING = ("temperature", "top_p")
READS: dict[str, tuple[str, ...]] = {
    "confidence": ("order", "reveal"),
    "sequential": (),
    "euler": _SAMPLING,
    "remasking": (*_SAMPLING, "remasking", "remasking_rate"),
    "two_stage": (*_SAMPLING, "refined_share"),
    "greedy": (),
    "beam": ("beams", "length_penalty"),
}
"""The options that each decoder reads; `candidates` reads those of its sampler too."""
GREEDY = ("confidence", "sequential")
"""Decoders that do not sample and write a token once: passes beyond the number of tokens do nothing."""


class DecodingOptions(BaseModel):
    """Settings that a decoder reads where it has a use for them.

    Raises:
        pydantic.ValidationError: an unknown setting, or a value out of its range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Order = Field(default="confidence", description="confidence: what makes a token sure")
    reveal: Reveal = Field(default="linear", description="confidence: equally many tokens a pass, or few at first")
    temperature: float = Field(
        default=1.0, ge=0.0, allow_inf_nan=False, description="of sampling; 0 takes the likeliest token"
    )
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="sampling: only the likeliest tokens of this mass")
    remasking: Remasking = Field(
        default="probability", description="remasking: by which rule known tokens are hidden again"
    )
    remasking_rate: float = Field(
        default=0.05, ge=0.0, le=1.0, description="remasking: how much is hidden again; remdm-confidence has no rate"
    )
    refined_share: float = Field(
        default=0.5, gt=0.0, le=1.0, description="two_stage: share of the hypothesis that is hidden and written anew"
    )
    candidates: int = Field(default=4, ge=1, description="candidates: samples of each vector")
    sampler: Sampler = Field(default="euler", description="candidates: the decoder that makes the samples")
    beams: int = Field(default=4, ge=1, le=64, description="beam: beginnings of a text that are kept at each token")
    length_penalty: float = Field(
        default=1.0,
        ge=0.0,
        le=10.0,
        description="beam: a text's log-probability is divided by its length to this power; above 0 favours long ones",
    )

    @field_validator("temperature")
    @classmethod
    def _warm_enough(cls, temperature: float) -> float:
        if 0.0 < temperature < COLDEST:
            raise ValueError(f"give 0 for the likeliest token, or at least {COLDEST}")
        return temperature

    def read_by(self, strategy: str) -> dict[str, Any]:
        """The options that a strategy reads, with their values.

        Raises:
            ValueError: another one is not at its default, so that somebody would wait for it in vain.
        """
        names = READS[self.sampler] + ("candidates", "sampler") if strategy == "candidates" else READS[strategy]
        for name, known in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in names and value != known.default:
                read = f"it reads {', '.join(names)}" if names else "it reads none"
                raise ValueError(f"option {name}={value} does nothing for strategy {strategy}; {read}")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Choices:
    """How to decode: vectors for which these are equal can go through the model together.

    Attributes:
        strategy: a decoder.
        steps: passes at most.
        seed: for decoders that sample.
        options: how the decoder does what it does.

    Raises:
        ValueError: an unknown strategy, steps below 1, or an option that the strategy does not read.
    """

    strategy: str = "confidence"
    steps: int = 8
    seed: int = 0
    options: DecodingOptions = field(default_factory=DecodingOptions)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGY_NAMES:
            raise ValueError(f"strategy {self.strategy!r} is unknown; choose one of {', '.join(STRATEGY_NAMES)}")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; give at least 1")
        self.options.read_by(self.strategy)

    @property
    def samples(self) -> int:
        """Texts that are on their way at once for one vector."""
        return {"candidates": self.options.candidates, "beam": self.options.beams}.get(self.strategy, 1)


def read_options(settings: Sequence[str]) -> DecodingOptions:
    """Options from lines `key=value`, as a command line has them.

    Raises:
        ValueError: naming the setting that is unknown or wrong, and what there is.
    """
    known = DecodingOptions.model_fields
    given = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or key not in known:
            raise ValueError(f"option {setting!r}: give KEY=VALUE with one of {', '.join(known)}")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"option {setting!r}: the value cannot be read") from error
    try:
        return DecodingOptions.model_validate(given)
    except ValidationError as error:
        detail = error.errors()[0]
        name = str(detail["loc"][0])
        raise ValueError(f"option {name}={given[name]}: {detail['msg']} ({known[name].description})") from error
