"""A dump in memory, which can change or break while it is read."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from embinv.data.dumps.base import Block, BrokenDump
from tests.fakes import unit_vectors


@dataclass
class FakePart:
    name: str
    vectors: np.ndarray
    ids: list
    texts: list[str] | None = None
    breaks_at: int | None = None  # the row at which the store closes its connection
    pieces: tuple[int, ...] = (3, 1, 5)  # lengths of blocks, over and over
    asked: list[bool] = field(default_factory=list)

    @property
    def rows(self):
        return len(self.vectors)

    def blocks(self, rows, metadata=True):
        self.asked.append(metadata)
        start = number = 0
        while start < len(self.vectors):
            if self.breaks_at is not None and start >= self.breaks_at:
                raise BrokenDump(f"--vectors {self.name}: the connection was lost at row {start}")
            end = min(start + min(rows, self.pieces[number % len(self.pieces)]), len(self.vectors))
            others = pa.table({"note": self.texts[start:end]}) if metadata and self.texts else None
            yield Block(pa.array(self.ids[start:end]), self.vectors[start:end], others)
            start, number = end, number + 1


@dataclass
class FakeDump:
    given: list[FakePart]
    address: str = "fake"

    def parts(self):
        return self.given


def fake_dump(*rows, dim=16, seed=0):
    """A dump with parts of so many random vectors; ids are numbered through."""
    vectors, parts, start = unit_vectors(sum(rows), dim, seed), [], 0
    for number, count in enumerate(rows):
        ids = list(range(start, start + count))
        notes = [f"note {each}" for each in ids]
        parts.append(FakePart(f"part {number}", vectors[start : start + count].copy(), ids, notes))
        start += count
    return FakeDump(parts)
