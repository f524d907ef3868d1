"""Which rows a corpus takes: exact copies and near-duplicates go, then languages have their shares.

Blocks stay where they lie in Ray's object store; what was chosen is moved by jobs/shuffle.py. Ids, languages and
MinHash bands travel to the driver, which decides, and signatures for candidate pairs only. What stays depends on the
texts and the seed, not on the order of blocks.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray

from embinv.data.corpus import seeded_key, select_rows
from embinv.data.near_duplicates import (
    band_keys,
    candidate_pairs,
    choose_bands,
    keep_first,
    near_duplicate_groups,
    priorities,
    signatures,
)
from embinv.data.settings import DataSettings

NUM_PERM = 128  # places of a MinHash signature: a similarity of 0.8 is known to within 0.035


@dataclass(frozen=True)
class Survey:
    """What the driver learns of one block: of its n good rows, and why the others went."""

    ids: np.ndarray  # [n] int64
    langs: np.ndarray  # [n] str
    keys: np.ndarray  # [n, b] uint64; b = 0 where near-duplicates stay
    dropped: Counter[str]


@dataclass(frozen=True)
class Choice:
    """Which of the N good rows stay, in which order they will lie, and why the others go."""

    order: np.ndarray  # [N] int64: place in the shuffled corpus; -1 for a row that goes
    langs: np.ndarray  # [N] str
    dropped: Counter[str]
    found: Counter[str]  # distinct rows by language, wanted or not

    @property
    def keep(self) -> np.ndarray:
        """[N] bool, the rows that stay."""
        return self.order >= 0


@ray.remote(num_returns=2)
def survey(block: pa.Table, near_duplicates: float | None, seed: int) -> tuple[Survey, np.ndarray]:
    """A block's survey, and the signatures [n, P] of its good rows, which stay in the object store."""
    good = block.filter(block["dropped"].is_null())
    reasons = block["dropped"].drop_null().value_counts().to_pylist()
    dropped = Counter({reason["values"]: reason["counts"] for reason in reasons})
    signed, keys = np.zeros((len(good), 0), np.uint32), np.zeros((len(good), 0), np.uint64)
    if near_duplicates is not None and len(good):
        signed = signatures(good["text"].to_pylist(), NUM_PERM, seed)
        keys = band_keys(signed, *choose_bands(near_duplicates, NUM_PERM))
    langs = np.asarray(good["lang"].to_pylist(), dtype=str)
    return Survey(good["id"].to_numpy(), langs, keys, dropped), signed


@ray.remote
def _rows_of(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return matrix[rows]


def choose(surveys: list[Survey], signed: list[ray.ObjectRef], settings: DataSettings) -> Choice:
    """Decides over all blocks that were read.

    Args:
        surveys: of the blocks, in order.
        signed: their signatures.
        settings: rows, shares, near_duplicates, seed.
    """
    ids = np.concatenate([np.zeros(0, np.int64), *(s.ids for s in surveys)])
    langs = np.concatenate([np.zeros(0, "<U1"), *(s.langs for s in surveys)])
    dropped = sum((s.dropped for s in surveys), Counter())
    _, first = np.unique(ids, return_index=True)
    first.sort()
    dropped["duplicate"] = len(ids) - len(first)
    if settings.near_duplicates is not None and len(first):
        alone = _without_near_duplicates(surveys, signed, ids, first, settings)
        dropped["near_duplicate"] = len(first) - len(alone)
        first = alone
    chosen = first[select_rows(ids[first], langs[first], settings.rows, settings.seed, settings.shares)]
    dropped["over_quota"] = len(first) - len(chosen)
    order = np.full(len(ids), -1, np.int64)
    order[chosen[np.argsort(seeded_key(ids[chosen], settings.seed, b"embinv-order"))]] = np.arange(len(chosen))
    found = Counter(dict(zip(*(part.tolist() for part in np.unique(langs[first], return_counts=True)), strict=True)))
    return Choice(order, langs, dropped, found)


def _without_near_duplicates(
    surveys: list[Survey], signed: list[ray.ObjectRef], ids: np.ndarray, first: np.ndarray, settings: DataSettings
) -> np.ndarray:
    """Of the rows `first`, those that are no near-duplicate of one that stays."""
    assert settings.near_duplicates is not None
    priority = priorities(ids[first], settings.seed)
    keys = np.concatenate([s.keys for s in surveys if len(s.ids)])[first]
    pairs = candidate_pairs(keys, priority)
    candidates = np.unique(pairs)  # places in `first`
    bounds = np.cumsum([0, *(len(s.ids) for s in surveys)])
    rows = first[candidates]  # ascending, since `first` is
    parts = [
        _rows_of.remote(ref, rows[(rows >= start) & (rows < end)] - start)
        for ref, start, end in zip(signed, bounds[:-1], bounds[1:], strict=True)
        if ((rows >= start) & (rows < end)).any()
    ]
    fetched = np.concatenate([np.zeros((0, NUM_PERM), np.uint32), *ray.get(parts)])
    groups = near_duplicate_groups(pairs, candidates, fetched, settings.near_duplicates, len(first))
    return first[keep_first(groups, priority)]
