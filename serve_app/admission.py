"""How much may be under way at a time, and when to come again.

A queue that grows without end makes everybody wait for answers that nobody waits for any more; so what is more than the
limit is turned away at once, with an estimate of when there will be room.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WINDOW_S = 10.0  # over which the rate of answers is measured
UNKNOWN_S = 5  # to come again, while no rate is known
LONGEST_S = 60


class QueueFull(Exception):
    """There is no room now.

    Args:
        queued: vectors under way.
        retry_after_s: when there may be room.
    """

    def __init__(self, queued: int, retry_after_s: int) -> None:
        super().__init__(f"{queued} vectors are under way; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Admission:
    """Counts the vectors of each encoder that are under way.

    Args:
        most: of one encoder at a time.
        on_change: is told the name and the count.
        clock: seconds.
    """

    def __init__(
        self,
        most: int,
        on_change: Callable[[str, int], None] = lambda name, queued: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._on_change, self._clock = most, on_change, clock
        self._queued: defaultdict[str, int] = defaultdict(int)
        self._answered: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)

    def queued(self, name: str) -> int:
        """Vectors of an encoder that are under way."""
        return self._queued[name]

    @contextmanager
    def enter(self, name: str, vectors: int) -> Iterator[None]:
        """Takes room for some vectors, and gives it back however the block ends.

        Raises:
            QueueFull: there is none.
        """
        if self._queued[name] + vectors > self._most:
            raise QueueFull(self._queued[name], self._retry_after(name, vectors))
        self._change(name, vectors)
        try:
            yield
            self._answered[name].append((self._clock(), vectors))
        finally:
            self._change(name, -vectors)

    def _change(self, name: str, vectors: int) -> None:
        self._queued[name] += vectors
        self._on_change(name, self._queued[name])

    def _retry_after(self, name: str, vectors: int) -> int:
        """Until so much has been answered that these would fit."""
        answered, now = self._answered[name], self._clock()
        while answered and answered[0][0] < now - WINDOW_S:
            answered.popleft()
        rate = sum(count for _, count in answered) / WINDOW_S
        if rate == 0.0:
            return UNKNOWN_S
        return min(LONGEST_S, max(1, math.ceil((self._queued[name] + vectors - self._most) / rate)))
