"""Rows are written in the order of their places, whatever blocks and ranges they pass through."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from jobs import shuffle
from jobs.corpus import SHARD_SCHEMA
from jobs.texts import CLEANED_SCHEMA

pytestmark = pytest.mark.usefixtures("ray_cluster")


def blocks_of(places, sizes):
    """Blocks whose good row i is named by its place; a bad row stands before each good one."""
    blocks, order, start = [], [], 0
    for size in sizes:
        part = places[start : start + size]
        columns = {
            "id": np.repeat(part, 2),
            "text": [text for place in part for text in ("", f"text {place}")],
            "lang": ["en"] * (2 * size),
            "spans": [None] * (2 * size),
            "dropped": ["empty", None] * size,
        }
        blocks.append(ray.put(pa.table(columns, schema=CLEANED_SCHEMA)))
        order.append(part)
        start += size
    return blocks, order


def places_of(count, gone, seed=0):
    """Places of count rows that stay and of some that go, mixed."""
    places = np.concatenate([np.arange(count), np.full(gone, -1)])
    return np.random.default_rng(seed).permutation(places)


@pytest.mark.parametrize("range_rows", [7, 40, 131_072], ids=["many ranges", "some ranges", "one range"])
@pytest.mark.parametrize("shard_rows", [5, 30, 1000])
def test_every_row_stands_at_its_place(tmp_path, monkeypatch, range_rows, shard_rows):
    monkeypatch.setattr(shuffle, "RANGE_ROWS", range_rows)
    places = places_of(100, gone=20)
    blocks, order = blocks_of(places, [50, 0, 1, 69])
    assert shuffle.write_shards(blocks, order, SHARD_SCHEMA, tmp_path, shard_rows) == 100
    files = sorted(tmp_path.iterdir())
    tables = [pq.read_table(file) for file in files]
    assert [file.name for file in files] == [f"part-{n:05d}.parquet" for n in range(len(files))]
    assert [len(table) for table in tables[:-1]] == [shard_rows] * (len(files) - 1)
    whole = pa.concat_tables(tables)
    assert whole.schema.equals(SHARD_SCHEMA)
    assert whole["text"].to_pylist() == [f"text {place}" for place in range(100)]
    assert whole["id"].to_pylist() == list(range(100))


def test_two_rows_with_one_place_are_never_written(tmp_path):
    blocks, order = blocks_of(np.array([0, 1, 1]), [3])
    with pytest.raises(ray.exceptions.RayTaskError):
        shuffle.write_shards(blocks, order, SHARD_SCHEMA, tmp_path, 10)
    assert list(tmp_path.iterdir()) == []
