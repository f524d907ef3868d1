"""One pass over a dump before anything is done with it: every vector is looked at, and its windows are counted.

Memory does not grow with the dump, but for some bytes a window. Whether these vectors are an encoder's is said by
`embinv.spaces.recognition`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from embinv.data.dumps.base import Dump
from embinv.data.dumps.windows import Window, bad_rows, windows
from embinv.spaces.moments import Moments
from embinv.spaces.recognition import Seen

NAMED = 20  # rows that are named, of those that cannot be inverted


@dataclass(frozen=True)
class BadRow:
    """A vector that cannot be inverted."""

    part: str
    row: int
    id: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row:,} {self.reason} (id {self.id})"


@dataclass(frozen=True)
class Inspection:
    """What a dump holds.

    Attributes:
        address: of the dump.
        dim: of its vectors.
        windows: all of them, in order.
        bad: how many vectors cannot be inverted.
        named: the first of those.
        seen: the statistics of the others; None if there is no other.
    """

    address: str
    dim: int
    windows: list[Window] = field(repr=False)
    bad: int
    named: list[BadRow]
    seen: Seen | None = field(repr=False)

    @property
    def rows(self) -> int:
        """All vectors."""
        return sum(window.rows for window in self.windows)

    def require_good(self) -> None:
        """Refuses a dump with vectors that cannot be inverted.

        Raises:
            ValueError: there are some; the message names the first.
        """
        if self.bad:
            more = f", and {self.bad - 1:,} more vectors" if self.bad > 1 else ""
            raise ValueError(
                f"--vectors {self.address}: {self.named[0]}{more}; mend or remove what cannot be inverted, or give "
                "--skip-bad: those get no text"
            )


def inspect(dump: Dump, window_rows: int, on_progress: Callable[[int], None] = lambda rows: None) -> Inspection:
    """Reads a dump once.

    Args:
        dump: to be read.
        window_rows: of each window.
        on_progress: gets the number of rows that were read, after each window.

    Raises:
        BrokenDump: it cannot be read to its end.
        ValueError: it holds no vectors, or parts of different dimensions.
    """
    found, named = [], []
    moments: Moments | None = None
    rows = bad = 0
    for number, part in enumerate(dump.parts()):
        for window, block in windows(part, number, window_rows, metadata=False):
            vectors = block.vectors
            if moments is None:
                moments = Moments(vectors.shape[1])
            elif vectors.shape[1] != moments.dim:
                raise ValueError(
                    f"--vectors {dump.address}: {part.name} has vectors of {vectors.shape[1]} dimensions, those before "
                    f"it have {moments.dim}; give each kind alone"
                )
            wrong = bad_rows(vectors)
            if wrong:
                bad += len(wrong)
                for row, reason in list(wrong.items())[: NAMED - len(named)]:
                    named.append(BadRow(part.name, rows + row, str(block.ids[row].as_py()), reason))
                vectors = np.delete(vectors, list(wrong), axis=0)
            moments.add(vectors)
            found.append(window)
            rows += window.rows
            on_progress(rows)
    if moments is None:
        raise ValueError(f"--vectors {dump.address}: no vector was given; it is empty")
    seen = Seen(moments.statistics(), moments.shape()) if moments.rows else None
    return Inspection(dump.address, moments.dim, found, bad, named, seen)
