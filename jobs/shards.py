"""Parquet files as a Ray Data source: one read task for each window of rows, and broken files set aside.

`ray.data.read_parquet` ends a job at the first unreadable file. Here such a file is noted (jobs/rejects.py) and gives
no rows. The blocks that come out have at most the wanted number of rows, and Ray does not merge them: a window is what
is sorted, encoded and committed together.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

TEXT_SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("lang", pa.string())])
# How shards are written. Parquet's own checksums are optional, and without them a flipped bit may read as another text.
SHARD_PARQUET = {
    "compression": "zstd",
    "use_dictionary": ["lang"],
    "write_statistics": ["id"],
    "write_page_checksum": True,
}
SPLIT = "split"
Reject = Callable[[str, str], None]  # (file, reason)


@dataclass(frozen=True)
class Window:
    """Rows of one row group of one shard."""

    file: str
    row_group: int
    start: int
    rows: int
    bytes: int


def list_windows(shards: list[Path], window_rows: int, reject: Reject) -> list[Window]:
    """Cuts shards into windows of at most `window_rows` by their footers alone; calls `reject` for broken ones."""
    windows = []
    for shard in shards:
        try:
            footer = pq.read_metadata(shard)
        except (pa.ArrowException, OSError) as error:
            reject(str(shard), str(error))
            continue
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            for start in range(0, group.num_rows, window_rows):
                rows = min(window_rows, group.num_rows - start)
                windows.append(Window(str(shard), number, start, rows, group.total_byte_size * rows // group.num_rows))
    return windows


def read_window(window: Window, reject: Reject, schema: pa.Schema = TEXT_SCHEMA) -> Iterable[pa.Table]:
    """Yields the rows of a window in a schema, or none and calls `reject`.

    A column `split` that the schema asks for is not in the file: the name of its folder, `split=...`, says it.
    """
    stored = [name for name in schema.names if name != SPLIT]
    try:
        with pq.ParquetFile(window.file, page_checksum_verification=True) as file:
            table = file.read_row_group(window.row_group, columns=stored, use_threads=False)
        table = table.slice(window.start, window.rows).select(stored)
        if SPLIT in schema.names:
            split = Path(window.file).parent.name.removeprefix(f"{SPLIT}=")
            table = table.append_column(SPLIT, pa.repeat(split, len(table))).select(schema.names)
        yield table.cast(schema)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reject(window.file, str(error))
        yield schema.empty_table()


def read_ids(files: Iterable[Path | str]) -> np.ndarray:
    """[N] int64, the ids in Parquet files."""
    ids = [pq.read_table(file, columns=["id"], partitioning=None)["id"].to_numpy() for file in files]
    return np.concatenate([np.zeros(0, dtype=np.int64), *ids])


def readable_ids(windows: list[Window], broken: Container[str]) -> np.ndarray:
    """[N] int64, the ids that can be read; of a `broken` file, those of its whole windows."""
    ids = [read_ids(dict.fromkeys(window.file for window in windows if window.file not in broken))]
    for window in windows:
        if window.file in broken:
            ids += [table["id"].to_numpy() for table in read_window(window, lambda file, reason: None)]
    return np.concatenate(ids)


class ShardSource(Datasource):
    """Windows in a schema, one read task each."""

    def __init__(self, windows: list[Window], reject: Reject, schema: pa.Schema = TEXT_SCHEMA) -> None:
        super().__init__()
        self.windows, self.reject, self.schema = windows, reject, schema

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all windows."""
        return sum(window.bytes for window in self.windows)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object | None = None
    ) -> list[ReadTask]:
        """One task for each window, whatever `parallelism` says."""
        return [
            ReadTask(
                partial(read_window, window, self.reject, self.schema),
                BlockMetadata(num_rows=None, size_bytes=window.bytes, input_files=[window.file], exec_stats=None),
                schema=self.schema,
                per_task_row_limit=per_task_row_limit,
            )
            for window in self.windows
        ]
