"""What a dump of vectors is to those who read it, whatever store it lies in: parts, which give blocks of rows in order.

A dump is never held in memory: a part yields blocks. Read again, an unchanged dump gives the same rows in the same
order, so that a job that was killed can go on behind what it has done. Nothing is checked here but shape: which
vectors can be inverted is said by `embinv.data.dumps.windows`.

Shapes: n rows of a block, D embedding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa


class BrokenDump(ValueError):
    """A store cannot be read further: it was cut short, closed its connection, or changed under the reader."""


class MissingLibrary(ValueError):
    """The library of a store is not installed; the message says which extra brings it."""


@dataclass(frozen=True)
class Block:
    """Some rows of a dump, in its order.

    Attributes:
        ids: [n] int64 or string, without nulls, as the store has them; row numbers of the dump where it has none.
        vectors: [n, D] float32, C order, unchecked; its rows may be NaN, infinite or zero. May be read-only.
        metadata: [n] rows, the store's other columns under their own names; None where they were not asked for, or
            a store with a schema has none. Stores without one (JSON lines, payloads) may give a column another type,
            or not at all, in another block.
    """

    ids: pa.Array
    vectors: np.ndarray
    metadata: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.vectors)


class Part(Protocol):
    """A stretch of a dump that can be read alone, in another process too: it pickles, and opens when it is read."""

    @property
    def name(self) -> str:
        """Where in the dump it lies, for messages: a file, a table."""
        ...

    @property
    def rows(self) -> int | None:
        """How many rows it has, where that is known without reading it."""
        ...

    def blocks(self, rows: int, metadata: bool = True) -> Iterator[Block]:
        """Yields its rows in order, at most `rows` in a block.

        Args:
            rows: of a block at most.
            metadata: whether columns beside id and vector are read.

        Raises:
            BrokenDump: it cannot be read, or no further; the message names where, and says what to do.
            ValueError: it holds no such vectors, rows of different lengths, or an id that is null.
        """
        ...


class Dump(Protocol):
    """A dump of vectors."""

    @property
    def address(self) -> str:
        """As the user gave it, without secrets."""
        ...

    def parts(self) -> Sequence[Part]:
        """Its parts, in order. Opening them costs little; a count may be read.

        Raises:
            BrokenDump: the store cannot be opened.
        """
        ...
