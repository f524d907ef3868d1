"""How much may be under way at a time, and when to come again.

A queue that grows without end makes everybody wait for answers that nobody waits for any more; so what would wait too
long is turned away at once, with an estimate of when there will be room. How long is known from the rate at which
vectors were answered lately while there was something to do: by Little's law a queue of L vectors at that rate is a
wait of L / rate.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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


@dataclass
class _Queue:
    """What is known of one encoder.

    Attributes:
        queued: vectors under way.
        busy_s: seconds in which there were any, up to `since`.
        since: when `queued` was last changed.
        answered: (time, busy seconds until then, vectors) of the answers of the last WINDOW_S.
    """

    queued: int = 0
    busy_s: float = 0.0
    since: float = 0.0
    answered: deque[tuple[float, float, int]] = field(default_factory=deque)

    def change(self, vectors: int, now: float) -> None:
        """So many more, or less, are under way."""
        if self.queued:
            self.busy_s += now - self.since
        self.queued, self.since = self.queued + vectors, now

    def answer(self, vectors: int, now: float) -> None:
        """So many of those under way have their texts."""
        busy_s = self.busy_s + now - self.since
        if not self.answered:  # from here on the rate is measured
            self.answered.append((now, busy_s, 0))
        self.answered.append((now, busy_s, vectors))

    def rate(self, now: float) -> float:
        """Vectors answered a busy second lately; 0 where none is known."""
        while len(self.answered) > 1 and self.answered[1][0] < now - WINDOW_S:
            self.answered.popleft()
        if not self.answered or self.answered[-1][0] < now - WINDOW_S:
            return 0.0
        spent = self.answered[-1][1] - self.answered[0][1]
        return sum(vectors for _, _, vectors in list(self.answered)[1:]) / spent if spent > 0 else 0.0


class Admission:
    """Counts the vectors of each encoder that are under way.

    Args:
        most: of one encoder at a time.
        longest_wait_s: that what is under way may take; what comes then is turned away.
        least: vectors that are let in however long they may take.
        on_change: is told the name and the count.
        clock: seconds.
    """

    def __init__(
        self,
        most: int,
        longest_wait_s: float = math.inf,
        least: int = 0,
        on_change: Callable[[str, int], None] = lambda name, queued: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._longest_wait_s, self._least = most, longest_wait_s, min(least, most)
        self._on_change, self._clock = on_change, clock
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)

    def queued(self, name: str) -> int:
        """Vectors of an encoder that are under way."""
        return self._queues[name].queued

    @contextmanager
    def enter(self, name: str, vectors: int) -> Iterator[None]:
        """Takes room for some vectors, and gives it back however the block ends.

        Raises:
            QueueFull: there is none.
        """
        queue = self._queues[name]
        rate = queue.rate(self._clock())
        room = float(self._most)
        if rate:
            room = min(room, max(self._least, rate * self._longest_wait_s + vectors))
        if queue.queued + vectors > room:
            over = queue.queued + vectors - room
            again = UNKNOWN_S if rate == 0.0 else min(LONGEST_S, max(1, math.ceil(over / rate)))
            raise QueueFull(queue.queued, again)
        self._change(name, vectors)
        try:
            yield
            queue.answer(vectors, self._clock())
        finally:
            self._change(name, -vectors)

    def _change(self, name: str, vectors: int) -> None:
        self._queues[name].change(vectors, self._clock())
        self._on_change(name, self._queues[name].queued)
