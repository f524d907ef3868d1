"""What a pairs data set looks like on disk, and the recipe it carries in its Arrow metadata.

Columns: id int64, text string, lang string, token_ids fixed_size_list<int32>[L], embedding
fixed_size_list<halffloat>[D], in folders `split=train|validation|test|correction`. The schema's metadata key `embinv`
holds the recipe as JSON. A reader refuses a data set whose recipe is not the one it expects.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, ValidationError

from embinv.data.versions import Upgrade, brought_up
from embinv.encoders.spec import EncoderSpec

SCHEMA_VERSION = 1
UPGRADES: Mapping[int, Upgrade] = {}  # no older version: new fields of a recipe have had defaults that mean the same
METADATA_KEY = b"embinv"


class PairsRecipe(BaseModel):
    """What made a pairs data set: two data sets with equal recipes can be mixed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = SCHEMA_VERSION
    encoder: EncoderSpec
    tokenizer: str
    tokenizer_hash: str
    vocab_size: int
    eos_id: int
    pad_id: int
    seq_len: int

    def differences(self, other: "PairsRecipe") -> list[str]:
        """Names the fields in which two recipes differ; where a tokenizer was found does not matter, its hash does."""
        ours, theirs = (r.model_dump(exclude={"encoder", "tokenizer"}) for r in (self, other))
        found = [f"{name}: {ours[name]!r} != {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]
        return [f"encoder.{line}" for line in self.encoder.differences(other.encoder)] + found


def reasons(error: ValidationError) -> str:
    """A validation error in one line: `path: what is wrong`, for each field."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"]))) for detail in error.errors()
    )


def pairs_schema(recipe: PairsRecipe) -> pa.Schema:
    """The Arrow schema of one file; the split stands in the folder's name."""
    return pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("lang", pa.string(), nullable=False),
            pa.field("token_ids", pa.list_(pa.int32(), recipe.seq_len), nullable=False),
            pa.field("embedding", pa.list_(pa.float16(), recipe.encoder.dim), nullable=False),
        ],
        metadata={METADATA_KEY: recipe.model_dump_json().encode()},
    )


def fixed_size_list(values: np.ndarray, item: pa.DataType) -> pa.FixedSizeListArray:
    """Turns a matrix [N, W] into an Arrow column of N lists of length W, without copying rows one by one."""
    width = values.shape[1]
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=item)
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, width))


def matrix(column: pa.ChunkedArray | pa.Array, width: int) -> np.ndarray:
    """The inverse of `fixed_size_list`: a column of N lists as a matrix [N, W]."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, width) for chunk in chunks if len(chunk)]
    if not parts:
        return np.zeros((0, width), dtype=column.type.value_type.to_pandas_dtype())
    return np.concatenate(parts)


def read_recipe(folder: str | Path) -> PairsRecipe:
    """Reads the recipe of a pairs data set.

    Raises:
        ValueError: the folder is not a pairs data set, or one of another version.
    """
    files = sorted(Path(folder).glob("split=*/*.parquet"))
    if not files:
        raise ValueError(
            f"{folder} holds no pairs (no split=*/*.parquet); make them with jobs/encode.py --out {folder}"
        )
    metadata = pads.dataset(files[0], format="parquet").schema.metadata or {}
    if METADATA_KEY not in metadata:
        raise ValueError(f"{files[0]} carries no recipe (schema metadata 'embinv'); encode again with jobs/encode.py")
    said = f"{files[0]} carries a recipe that this version cannot read"
    try:
        tree = json.loads(metadata[METADATA_KEY])
        return PairsRecipe.model_validate(brought_up(tree, "version", UPGRADES, SCHEMA_VERSION, said))
    except ValidationError as error:
        raise ValueError(f"{said}: {reasons(error)}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{said}: {error}") from error


def require_same_recipe(found: PairsRecipe, expected: PairsRecipe, where: str | Path, against: str) -> None:
    """Refuses data that another recipe made.

    Raises:
        ValueError: naming each field that differs.
    """
    differing = found.differences(expected)
    if differing:
        raise ValueError(f"{where} does not match {against}: " + "; ".join(differing))
