"""A dump cut into windows: numbered stretches of one length, each with a checksum, that are worked on and kept as one.

A window's number and checksum say whether it is the one that was seen before, so that a dump that changed is noticed,
whatever store it lies in, and nothing but what changed is done anew.

Shapes: n rows of a window, D embedding.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64

from embinv.data.dumps.base import Block, Part

AT_ONCE = 4  # windows that are read together


@dataclass(frozen=True)
class Window:
    """Rows [start, start + rows) of a part.

    Attributes:
        part: number of the part in its dump.
        number: of the window in its part.
        start: first row, counted in the part.
        rows: how many.
        checksum: of ids and vectors; the other columns are not covered.
    """

    part: int
    number: int
    start: int
    rows: int
    checksum: int

    @property
    def name(self) -> str:
        """Unique in the dump, in its order."""
        return f"{self.part:08}-{self.number:09}"


def windows(part: Part, number: int, rows: int, metadata: bool = True) -> Iterator[tuple[Window, Block]]:
    """Yields a part's windows, of exactly `rows` rows but for the last, and their rows; reads one block ahead.

    Args:
        part: to be read.
        number: of the part in its dump.
        rows: of a window.
        metadata: whether the other columns are read.

    Raises:
        BrokenDump, ValueError: of the part.
    """
    for place, block in enumerate(_of_one_length(_ahead(part.blocks(AT_ONCE * rows, metadata)), rows)):
        yield Window(number, place, place * rows, len(block), checksum(block)), block


def checksum(block: Block) -> int:
    """XXH3 of ids and vectors, 64 bits."""
    ids = block.ids
    found = xxh3_64()
    found.update(ids.to_numpy(zero_copy_only=False).tobytes() if pa.types.is_integer(ids.type) else _joined_ids(ids))
    found.update(np.ascontiguousarray(block.vectors).data)
    return found.intdigest()


def bad_rows(vectors: np.ndarray) -> dict[int, str]:
    """Rows [n, D] that cannot be inverted, and why."""
    with np.errstate(over="ignore", invalid="ignore"):
        known = np.vecdot(vectors, vectors)  # squared norms
    return {row: _reason(vectors[row]) for row in np.flatnonzero(~np.isfinite(known) | (known == 0)).tolist()}


def _reason(vector: np.ndarray) -> str:
    if not np.isfinite(vector).all():
        return "holds NaN or infinity"
    return "has a norm that float32 cannot hold" if vector.any() else "is a zero vector"


def _joined_ids(ids: pa.Array) -> bytes:
    return "\0".join(ids.to_pylist()).encode("utf-8", "surrogatepass")


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks; while one is worked on, the next is read."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def _of_one_length(blocks: Iterator[Block], rows: int) -> Iterator[Block]:
    """The same rows in blocks of `rows`, the last of what is left; copied where they come from two blocks."""
    held: list[Block] = []  # fewer than `rows` in all
    for block in blocks:
        start = rows - sum(map(len, held))  # of this block, what fills a window with what is held
        if len(block) < start:
            held.append(block)
            continue
        yield _together([*held, _slice(block, 0, start)])
        while start + rows <= len(block):
            yield _slice(block, start, start + rows)
            start += rows
        held = [_slice(block, start, len(block))] if start < len(block) else []
    if held and len(left := _together(held)):
        yield left


def _together(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    tables = [block.metadata for block in blocks if block.metadata is not None]
    return Block(
        pa.concat_arrays([block.ids for block in blocks]),
        np.concatenate([block.vectors for block in blocks]),
        pa.concat_tables(tables, promote_options="permissive") if tables else None,
    )


def _slice(block: Block, start: int, end: int) -> Block:
    if (start, end) == (0, len(block)):
        return block
    rows = None if block.metadata is None else block.metadata.slice(start, end - start)
    return Block(block.ids.slice(start, end - start), block.vectors[start:end], rows)
