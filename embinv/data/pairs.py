"""Reading pairs into memory, and the order in which training sees them.

A split is read once, sorted by id, so that the order on disk does not matter. The order of an epoch is a
permutation drawn from (seed, epoch) alone: any step can be found again without replaying the ones before it.
Encoding and writing pairs is the encode job's.

Shapes: N rows, L tokens, D embedding, B batch.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from embinv.data.schema import PairsRecipe, fixed_size_list, matrix, pairs_schema, read_recipe
from embinv.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Pairs:
    """One split in memory.

    Attributes:
        ids: [N] int64, ascending.
        texts: N strings.
        langs: N language codes.
        token_ids: [N, L] int32.
        embeddings: [N, D] float16, as stored.
    """

    ids: np.ndarray
    texts: list[str]
    langs: list[str]
    token_ids: np.ndarray
    embeddings: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> "Pairs":
        """The given rows, in the given order."""
        return Pairs(
            self.ids[rows],
            [self.texts[i] for i in rows],
            [self.langs[i] for i in rows],
            self.token_ids[rows],
            self.embeddings[rows],
        )

    def to_arrow(self, recipe: PairsRecipe) -> pa.Table:
        """The rows as they lie on disk, with the recipe in the schema's metadata."""
        columns = [
            pa.array(self.ids, pa.int64()),
            pa.array(self.texts, pa.string()),
            pa.array(self.langs, pa.string()),
            fixed_size_list(self.token_ids, pa.int32()),
            fixed_size_list(self.embeddings, pa.float16()),
        ]
        return pa.Table.from_arrays(columns, schema=pairs_schema(recipe))

    def renumbered(self, vocabulary: Vocabulary) -> "Pairs":
        """The same rows with the model's token ids."""
        return replace(self, token_ids=vocabulary.compact(self.token_ids))

    def sample(self, rows: int, seed: int) -> "Pairs":
        """At most `rows` rows, chosen by a seed, in a random order."""
        order = np.random.default_rng(seed).permutation(len(self))[:rows]
        return self.take(order)


def read_pairs(folder: str | Path, split: str) -> Pairs:
    """Reads one split of a pairs data set.

    Raises:
        ValueError: the folder is not a pairs data set, or the split is absent or empty.
    """
    recipe = read_recipe(folder)
    return pairs_of(read_split(folder, split), recipe)


def read_split(folder: str | Path, split: str) -> pa.Table:
    """The rows of one split, sorted by id, with all columns.

    Raises:
        ValueError: there are none.
    """
    table = pads.dataset(split_files(folder, split), format="parquet").to_table()
    return table.take(np.argsort(table["id"].to_numpy(), kind="stable"))


def split_files(folder: str | Path, split: str) -> list[Path]:
    """The files of one split, in order.

    Raises:
        ValueError: there are none.
    """
    files = sorted(Path(folder).glob(f"split={split}/*.parquet"))
    if not files:
        raise ValueError(f"{folder} has no rows in split={split}; encode more texts or raise data.{split}")
    return files


def pairs_of(table: pa.Table, recipe: PairsRecipe) -> Pairs:
    """Rows of a table in memory, in their order; columns that pairs do not have are left out."""
    return Pairs(
        table["id"].to_numpy(),
        table["text"].to_pylist(),
        table["lang"].to_pylist(),
        matrix(table["token_ids"], recipe.seq_len),
        matrix(table["embedding"], recipe.encoder.dim),
    )


def batch_rows(rows: int, batch: int, step: int, seed: int) -> np.ndarray:
    """The rows of one step, over all workers and passes; what does not fill a step is left for another epoch.

    Args:
        rows: N.
        batch: B, texts in a step.
        step: counted from 0 over all epochs.
        seed: of the run.

    Returns:
        [B] int64.

    Raises:
        ValueError: there are fewer rows than one step reads.
    """
    steps_per_epoch = rows // batch
    if steps_per_epoch == 0:
        raise ValueError(f"{rows} training rows do not fill one step of {batch}; lower training.batch_size")
    epoch, place = divmod(step, steps_per_epoch)
    return _permutation(rows, seed, epoch)[place * batch : (place + 1) * batch]


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(rows)
