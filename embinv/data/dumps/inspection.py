"""One pass over a dump before anything is done with it: every vector is looked at, and its windows are counted.

Memory does not grow with the dump, but for some bytes a window. Parts are read beside each other, and what is said of
them does not depend on which was first. Whether these vectors are an encoder's is said by
`embinv.spaces.recognition`.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np
from threadpoolctl import threadpool_limits

from embinv.data.dumps.base import Dump, Part
from embinv.data.dumps.windows import Window, bad_rows, windows
from embinv.spaces.moments import Moments
from embinv.spaces.recognition import Seen

NAMED = 3  # rows that are named, of those that cannot be inverted
READERS = 8  # parts that are read beside each other at most


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
            ValueError: there are some; the message names some.
        """
        if self.bad:
            said, left = ", ".join(map(str, self.named)), self.bad - len(self.named)
            more = f", and {left:,} more vectors" if left else ""
            raise ValueError(
                f"--vectors {self.address}: {said}{more}; mend or remove what cannot be inverted, or give "
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
    told, moments = _Told(on_progress), None
    found: list[Window] = []
    named: list[BadRow] = []
    rows = bad = 0
    for part, look in _looks(dump.parts(), window_rows, told):
        if look.moments is not None:
            moments = moments or Moments(look.moments.dim)
            if look.moments.dim != moments.dim:
                raise ValueError(
                    f"--vectors {dump.address}: {part.name} has vectors of {look.moments.dim} dimensions, those before "
                    f"it have {moments.dim}; give each kind alone"
                )
            moments.join(look.moments)
        named += [replace(each, row=rows + each.row) for each in look.named[: NAMED - len(named)]]
        found += look.windows
        rows, bad = rows + sum(window.rows for window in look.windows), bad + look.bad
    if moments is None:
        raise ValueError(f"--vectors {dump.address}: no vector was given; it is empty")
    seen = Seen(moments.statistics(), moments.shape()) if moments.rows else None
    return Inspection(dump.address, moments.dim, found, bad, named, seen)


def _looks(parts: Sequence[Part], window_rows: int, told: "_Told") -> Iterator[tuple[Part, "_Look"]]:
    """Yields each part with what it holds, in order; as few as there are readers are looked at ahead of that."""
    readers = max(1, min(len(parts), os.cpu_count() or 1, READERS))
    coming: deque[tuple[Part, Future[_Look]]] = deque()
    # Products of one thread each: with parts beside each other, more of them would only wait for one another.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(readers) as pool:
        try:
            for number, part in enumerate(parts):
                coming.append((part, pool.submit(_look, part, number, window_rows, told)))
                if len(coming) > readers:
                    first, look = coming.popleft()
                    yield first, look.result()
            while coming:
                first, look = coming.popleft()
                yield first, look.result()
        finally:
            told.stopped = True  # an error, or nobody asks for more
            pool.shutdown(cancel_futures=True)


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
    if told.stopped:
        return look
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
