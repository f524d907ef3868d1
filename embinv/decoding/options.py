"""How decoders do what they do: the settings of all of them, checked once. No tensor here."""

from collections.abc import Sequence
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Strategy = Literal["confidence", "sequential", "euler", "remasking", "two_stage", "candidates"]
"""Names of the decoders; `embinv.decoding.strategies` has what they name."""

ORDERS = ("confidence", "margin", "entropy")
REVEALS = ("linear", "cosine")
REMASKINGS = ("threshold", "probability", "remdm-cap", "remdm-rescale", "remdm-confidence", "remdm-loop")


class DecodingOptions(BaseModel):
    """Settings that a decoder reads where it has a use for them.

    Raises:
        pydantic.ValidationError: an unknown setting, or a value out of its range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Literal["confidence", "margin", "entropy"] = Field(
        default="confidence", description="confidence: what makes a token sure"
    )
    reveal: Literal["linear", "cosine"] = Field(
        default="linear", description="confidence: equally many tokens a pass, or few at first"
    )
    temperature: float = Field(default=1.0, ge=0.0, description="of sampling; 0 takes the likeliest token")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="sampling: only the likeliest tokens of this mass")
    remasking: Literal["threshold", "probability", "remdm-cap", "remdm-rescale", "remdm-confidence", "remdm-loop"] = (
        Field(default="probability", description="remasking: by which rule known tokens are hidden again")
    )
    remasking_rate: float = Field(default=0.05, ge=0.0, le=1.0, description="remasking: how much is hidden again")
    refined_share: float = Field(
        default=0.5, gt=0.0, le=1.0, description="two_stage: share of the hypothesis that is hidden and written anew"
    )
    candidates: int = Field(default=4, ge=1, description="candidates: samples of each vector")
    sampler: Literal["euler", "remasking", "two_stage"] = Field(
        default="euler", description="candidates: the decoder that makes the samples"
    )


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
