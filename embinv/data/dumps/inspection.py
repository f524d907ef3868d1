"""One pass over a dump before anything is done with it: every vector is looked at, and its windows are counted.

Memory does not grow with the dump, but for some bytes a window. Parts are read beside each other, and what is said of
them does not depend on which was first. Whether these vectors are an encoder's is said by
`embinv.spaces.recognition`.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np
from threadpoolctl import threadpool_limits

from embinv.data.dumps.base import Dump, Part
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
    """Reads a dump once, as many parts at a time as there are cores.

    Args:
        dump: to be read.
        window_rows: of each window.
        on_progress: gets the number of rows that were read, now and then.

    Raises:
        BrokenDump: it cannot be read to its end.
        ValueError: it holds no vectors, or parts of different dimensions.
    """
    parts, told = dump.parts(), _Told(on_progress)
    # Products of one thread each: with parts beside each other, more of them would only wait for one another.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(max(1, min(len(parts), os.cpu_count() or 1))) as readers:
        waiting = [readers.submit(_look, part, number, window_rows, told) for number, part in enumerate(parts)]
        try:
            looks = [each.result() for each in waiting]
        except BaseException:
            told.stopped = True
            raise
    found = [look for look in looks if look.moments is not None]
    if not found:
        raise ValueError(f"--vectors {dump.address}: no vector was given; it is empty")
    assert found[0].moments is not None
    moments, named, rows = Moments(found[0].moments.dim), [], 0
    for part, look in zip(parts, looks, strict=True):
        if look.moments is not None:
            if look.moments.dim != moments.dim:
                raise ValueError(
                    f"--vectors {dump.address}: {part.name} has vectors of {look.moments.dim} dimensions, those before "
                    f"it have {moments.dim}; give each kind alone"
                )
            moments.join(look.moments)
        named += [replace(each, row=rows + each.row) for each in look.named[: NAMED - len(named)]]
        rows += sum(window.rows for window in look.windows)
    seen = Seen(moments.statistics(), moments.shape()) if moments.rows else None
    windows_of_all = [window for look in looks for window in look.windows]
    return Inspection(dump.address, moments.dim, windows_of_all, sum(look.bad for look in looks), named, seen)


@dataclass
class _Look:
    """What one part holds; `row` of what is named counts in the part."""

    windows: list[Window] = field(default_factory=list)
    bad: int = 0
    named: list[BadRow] = field(default_factory=list)
    moments: Moments | None = None


class _Told:
    """Rows that all readers have read."""

    def __init__(self, on_progress: Callable[[int], None]) -> None:
        self.on_progress, self.lock, self.rows, self.stopped = on_progress, Lock(), 0, False

    def more(self, rows: int) -> None:
        with self.lock:
            self.rows += rows
            self.on_progress(self.rows)


def _look(part: Part, number: int, window_rows: int, told: _Told) -> _Look:
    look = _Look()
    for window, block in windows(part, number, window_rows, metadata=False):
        if told.stopped:  # another part cannot be read: nobody asks for this one
            break
        vectors = block.vectors
        if look.moments is None:
            look.moments = Moments(vectors.shape[1])
        wrong = bad_rows(vectors)
        if wrong:
            look.bad += len(wrong)
            for row, reason in list(wrong.items())[: NAMED - len(look.named)]:
                look.named.append(BadRow(part.name, window.start + row, str(block.ids[row].as_py()), reason))
            vectors = np.delete(vectors, list(wrong), axis=0)
        look.moments.add(vectors)
        look.windows.append(window)
        told.more(window.rows)
    return look
