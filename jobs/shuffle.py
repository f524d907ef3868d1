"""The chosen rows of all blocks, written as shards in one shuffled order.

Every row's place is known, so this is one exchange: each block is cut by range of places, and each range is put
together from its cuts, sorted, and written as a few whole shards. Ray Data's `sort` would sample to find the ranges.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from jobs.shards import SHARD_PARQUET

RANGE_ROWS = 131_072  # rows that one task puts together, about


def write_shards(
    blocks: list[ray.ObjectRef], order: list[np.ndarray], schema: pa.Schema, folder: Path, shard_rows: int
) -> int:
    """Writes `part-*.parquet`, `shard_rows` rows each but for the last.

    Args:
        blocks: tables with a column `dropped`, null in the n good rows of each.
        order: [n] int64 for each block: place of a good row in the corpus, -1 for one that goes.
        schema: of a shard.
        folder: where to.
        shard_rows: rows of a shard.

    Returns:
        Rows written.
    """
    total = sum(int((places >= 0).sum()) for places in order)
    rows = shard_rows * max(1, RANGE_ROWS // shard_rows)
    ranges = -(-total // rows)
    cuts = [_cut.options(num_returns=ranges).remote(*pair, rows, ranges) for pair in zip(blocks, order, strict=True)]
    columns = [[cut] for cut in cuts] if ranges == 1 else cuts
    written = [
        _write.remote(number * rows, schema, str(folder), shard_rows, *(cut[number] for cut in columns))
        for number in range(ranges)
    ]
    return sum(ray.get(written))


@ray.remote
def _cut(block: pa.Table, places: np.ndarray, rows: int, ranges: int) -> pa.Table | tuple[pa.Table, ...]:
    """A block's chosen rows, by range of places."""
    good = block.filter(block["dropped"].is_null()).drop_columns(["dropped"])
    good = good.append_column("place", pa.array(places)).filter(pa.array(places >= 0))
    owner = good["place"].to_numpy() // rows
    parts = tuple(good.filter(pa.array(owner == number)) for number in range(ranges))
    return parts[0] if ranges == 1 else parts


@ray.remote
def _write(start: int, schema: pa.Schema, folder: str, shard_rows: int, *cuts: pa.Table) -> int:
    """Puts one range together and writes its shards, each at once or not at all."""
    table = pa.concat_tables(cuts).sort_by("place")
    assert (table["place"].to_numpy() == np.arange(start, start + len(table))).all()
    for first in range(0, len(table), shard_rows):
        path = Path(folder) / f"part-{(start + first) // shard_rows:05d}.parquet"
        partial = path.with_suffix(".partial")
        shard = table.slice(first, shard_rows).select(schema.names).cast(schema)
        pq.write_table(shard, partial, **SHARD_PARQUET)
        partial.replace(path)
    return len(table)
