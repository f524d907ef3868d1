"""What `embinv align` reads and writes: known pairs into memory, and a dump through a map into a Parquet file.

Known pairs are few. The dump to invert is not: it is read, inverted and written block by block. What is read may lie in
any store that `embinv.data.dumps.opening` opens.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embinv.aligning import invert_through
from embinv.data.dumps.base import Block, Dump
from embinv.data.folders import whole_file
from embinv.inverter import TextInverter
from embinv.spaces.linear import LinearMap

BLOCK_ROWS = 1024  # of a dump, read and written together
TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)


def read_known(dump: Dump, text_column: str) -> tuple[list[str | None], np.ndarray]:
    """Texts and vectors [N, D] of known pairs, all of them in memory.

    Raises:
        ValueError: there are no rows, no texts, or vectors of several dimensions.
    """
    texts: list[str | None] = []
    vectors: list[np.ndarray] = []
    columns: dict[str, None] = {}
    for block in _blocks(dump, BLOCK_ROWS, metadata=True):
        table = block.metadata if block.metadata is not None else pa.table({})
        columns |= dict.fromkeys(table.column_names)
        if text_column in table.column_names:
            column = table[text_column]
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if not any(is_text(kind) for is_text in TEXT_TYPES):
                raise ValueError(f"--text-column {text_column}: {dump.address} has {kind} there; name one of texts")
            texts += column.to_pylist()
        else:  # a store without a schema leaves a column out where no row of a block has it
            texts += [None] * len(block)
        vectors.append(block.vectors)
    if not vectors:
        raise ValueError(f"--known {dump.address}: holds no rows; give texts with their vectors")
    if text_column not in columns:
        there = f"it has {', '.join(columns)}" if columns else "it has vectors alone"
        raise ValueError(f"--text-column {text_column}: {dump.address} has no such column; {there}")
    dimensions = sorted({each.shape[1] for each in vectors})
    if len(dimensions) > 1:
        raise ValueError(f"--known {dump.address}: vectors have {dimensions} dimensions; give those of one space")
    return texts, np.concatenate(vectors)


def invert_dump(
    inverter: TextInverter,
    linear: LinearMap,
    dump: Dump,
    out: Path,
    steps: int = 8,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, int]:
    """Inverts a dump through a map into a Parquet file of id, text and confidence, block by block.

    Returns:
        How many rows were read, and how many of them could not be inverted; their text is null.

    Raises:
        ValueError: the dump holds no rows, vectors of another dimension than the map takes, or ids of several types.
    """
    done = unusable = 0
    writer: pq.ParquetWriter | None = None
    takes = len(linear.source_mean)
    with whole_file(out) as partial:
        try:
            for block in _blocks(dump, BLOCK_ROWS, metadata=False):
                if block.vectors.shape[1] != takes:
                    raise ValueError(
                        f"--vectors {dump.address}: vectors have {block.vectors.shape[1]} dimensions, the map takes "
                        f"{takes}; give a dump of the space that it was fitted on"
                    )
                found = invert_through(inverter, linear, block.vectors, steps, seed)
                table = pa.table(
                    {
                        "id": block.ids,
                        "text": pa.array([each and each.text for each in found], pa.string()),
                        "confidence": pa.array([each and each.confidence for each in found], pa.float32()),
                    }
                )
                if writer is None:
                    writer = pq.ParquetWriter(partial, table.schema)
                elif table.schema != writer.schema:
                    raise ValueError(f"--vectors {dump.address}: ids are of several types; give one dump at a time")
                writer.write_table(table)
                done, unusable = done + len(block), unusable + found.count(None)
                on_progress(done)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise ValueError(f"--vectors {dump.address}: holds no rows; give a dump with vectors")
    return done, unusable


def _blocks(dump: Dump, rows: int, metadata: bool) -> Iterator[Block]:
    for part in dump.parts():
        yield from (block for block in part.blocks(rows, metadata) if len(block))
