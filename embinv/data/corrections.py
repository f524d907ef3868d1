"""What a corrector learns from: pairs, and beside each what an inverter made of its vector, and that text's own vector.

The inverter must not have learnt from these texts: what it recovers of texts that it knows is too good, and a corrector
that saw nothing else is of little use (PEERS: BLEU 48.7 against 62.8). So they are of a split of their own,
`correction`, which no inverter reads; jobs/hypotheses.py makes of it the `train` split of a data set of this schema.

Shapes: N rows, L tokens, D embedding.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from pydantic import BaseModel, ConfigDict, ValidationError

from embinv.data.pairs import Pairs, pairs_of, read_split
from embinv.data.schema import PairsRecipe, fixed_size_list, matrix, pairs_schema, read_recipe, reasons

HYPOTHESES_KEY = b"embinv_hypotheses"


class HypothesesRecipe(BaseModel):
    """What made the hypotheses of a data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inverter: str  # its name
    weights: str  # their fingerprint
    strategy: str
    steps: int
    seed: int


def corrections_schema(recipe: PairsRecipe, hypotheses: HypothesesRecipe) -> pa.Schema:
    """The Arrow schema of one file: that of pairs with three columns more.

    `hypothesis` is a string, `hypothesis_ids` its tokens as the decoder's tokenizer reads the string again, with EOS
    and PAD behind it, and `hypothesis_embedding` the encoder's vector of it.
    """
    pairs = pairs_schema(recipe)
    columns = [
        pa.field("hypothesis", pa.string(), nullable=False),
        pa.field("hypothesis_ids", pa.list_(pa.int32(), recipe.seq_len), nullable=False),
        pa.field("hypothesis_embedding", pa.list_(pa.float16(), recipe.encoder.dim), nullable=False),
    ]
    metadata = {**pairs.metadata, HYPOTHESES_KEY: hypotheses.model_dump_json().encode()}
    return pa.schema([*pairs, *columns], metadata=metadata)


@dataclass(frozen=True)
class Corrections:
    """One split in memory.

    Attributes:
        pairs: the texts and their vectors.
        hypotheses: N texts.
        hypothesis_ids: [N, L] int32.
        hypothesis_embeddings: [N, D] float16.
    """

    pairs: Pairs
    hypotheses: list[str]
    hypothesis_ids: np.ndarray
    hypothesis_embeddings: np.ndarray

    def joined(self) -> Pairs:
        """As a corrector reads them: token ids [N, 2 L], the hypothesis and then the text; embeddings [N, 2 D], the
        text's, which is the wanted one, and then the hypothesis's own."""
        pairs = self.pairs
        return replace(
            pairs,
            token_ids=np.concatenate([self.hypothesis_ids, pairs.token_ids], axis=1),
            embeddings=np.concatenate([pairs.embeddings, self.hypothesis_embeddings], axis=1),
        )

    def to_arrow(self, recipe: PairsRecipe, hypotheses: HypothesesRecipe) -> pa.Table:
        """The rows as they lie on disk."""
        columns = [
            *self.pairs.to_arrow(recipe).columns,
            pa.array(self.hypotheses, pa.string()),
            fixed_size_list(self.hypothesis_ids, pa.int32()),
            fixed_size_list(self.hypothesis_embeddings, pa.float16()),
        ]
        return pa.Table.from_arrays(columns, schema=corrections_schema(recipe, hypotheses))


def find_hypotheses_recipe(folder: str | Path) -> HypothesesRecipe | None:
    """Reads what made the hypotheses of a data set; None of pairs without hypotheses.

    Raises:
        ValueError: the folder holds no pairs, or another version's hypotheses.
    """
    read_recipe(folder)
    file = min(Path(folder).glob("split=*/*.parquet"))
    metadata = pads.dataset(file, format="parquet").schema.metadata or {}
    if HYPOTHESES_KEY not in metadata:
        return None
    try:
        return HypothesesRecipe.model_validate_json(metadata[HYPOTHESES_KEY])
    except ValidationError as error:
        raise ValueError(f"{file} names its hypotheses in another version's way: {reasons(error)}") from error


def read_hypotheses_recipe(folder: str | Path) -> HypothesesRecipe:
    """As `find_hypotheses_recipe`, where there must be one.

    Raises:
        ValueError: the folder holds no pairs, or pairs without hypotheses.
    """
    found = find_hypotheses_recipe(folder)
    if found is None:
        raise ValueError(
            f"{folder} holds pairs without hypotheses, and a corrector learns from both; make them with "
            "jobs/hypotheses.py"
        )
    return found


def read_corrections(folder: str | Path, split: str) -> Corrections:
    """Reads one split.

    Raises:
        ValueError: the folder holds no hypotheses, or the split is absent or empty.
    """
    read_hypotheses_recipe(folder)
    recipe = read_recipe(folder)
    table = read_split(folder, split)
    return Corrections(
        pairs_of(table, recipe),
        table["hypothesis"].to_pylist(),
        matrix(table["hypothesis_ids"], recipe.seq_len),
        matrix(table["hypothesis_embedding"], recipe.encoder.dim),
    )


def end_marked(rows: list[list[int]], length: int, eos_id: int, pad_id: int) -> np.ndarray:
    """Token ids of N texts as [N, L] int32: cut to L - 1, then EOS, then PAD."""
    table = np.full((len(rows), length), pad_id, dtype=np.int32)
    for row, ids in enumerate(rows):
        kept = ids[: length - 1]
        table[row, : len(kept)], table[row, len(kept)] = kept, eos_id
    return table
