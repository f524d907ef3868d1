"""A fitted map between embedding spaces as a folder: map.safetensors with its numbers, map.json with what they are of.

    map.safetensors    weight [D, E], source_mean [D], target_mean [E], float64
    map.json           `KeptMap`

A map leads to the vectors of one encoder; read for another one, it is refused. Nothing is unpickled.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from embinv.data.folders import whole_file
from embinv.encoders.spec import EncoderSpec
from embinv.spaces.linear import LinearMap

NUMBERS, FACTS = "map.safetensors", "map.json"


class KeptMap(BaseModel):
    """What a kept map is of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    kind: str = Field(description="how it was fitted, such as `ridge 0.1`")
    known_pairs: int = Field(ge=1, description="pairs that it was fitted on")
    encoder: EncoderSpec = Field(description="whose vectors it leads to")


def write_map(folder: Path, linear: LinearMap, kept: KeptMap) -> None:
    """Writes a map into a folder, which is made; one that is there is replaced.

    Raises:
        ValueError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        numbers = {
            "weight": linear.weight,
            "source_mean": linear.source_mean,
            "target_mean": linear.target_mean,
        }
        with whole_file(folder / NUMBERS) as partial:
            save_file({name: np.ascontiguousarray(each, np.float64) for name, each in numbers.items()}, partial)
        with whole_file(folder / FACTS) as partial:
            partial.write_text(kept.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{folder}: a map cannot be written there ({error.strerror}); give another folder") from error


def read_map(folder: Path, encoder: EncoderSpec) -> tuple[LinearMap, KeptMap]:
    """Reads a map that leads to an encoder's vectors.

    Raises:
        ValueError: the folder holds no map that can be read, or one to another encoder.
    """
    remedy = "give a folder that `embinv align --known FILE --map DIR` wrote"
    try:
        kept = KeptMap.model_validate_json((folder / FACTS).read_text(encoding="utf-8"))
        numbers = load_file(folder / NUMBERS)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: holds no map ({FACTS}, {NUMBERS}); {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or FACTS
        raise ValueError(f"{folder / FACTS}: {field}: {first['msg']}; {remedy}") from error
    except (OSError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"{folder}: its map cannot be read ({error}); {remedy}") from error
    differences = kept.encoder.differences(encoder)
    if differences:
        raise ValueError(f"{folder}: leads to another encoder than the checkpoint's ({'; '.join(differences)})")
    weight = numbers.get("weight", np.empty(0))
    shapes = {"source_mean": weight.shape[:1], "target_mean": weight.shape[1:]}
    whole = weight.ndim == 2 and weight.shape[1] == encoder.dim
    if not (whole and all(name in numbers and numbers[name].shape == shape for name, shape in shapes.items())):
        raise ValueError(f"{folder / NUMBERS}: holds no map to {encoder.dim} dimensions; {remedy}")
    return LinearMap(weight, numbers["source_mean"], numbers["target_mean"]), kept
