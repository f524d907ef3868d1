"""The vectors of many requests through one model together: what runs next, and who is told about it.

While the model is at work requests gather, and when it is free the next batch is made of what is there: one vector of
each request in turn, so that a request of a thousand vectors does not keep out one of a single vector. A lone request
waits for nobody. But callers who were just answered often ask again at once, and without a moment's patience two groups
of them would take turns, each in half a batch; so a batch waits for as many as the last one answered, for a twentieth
of the time that it took at most. Vectors go together if they are to be decoded in the same way; the way of the oldest
request comes first.
The model runs in a thread of its own, since health checks and other requests need the event loop meanwhile. A request
that was given up leaves the queue at once, and ends a batch that nobody waits for any more at its next pass.

No model here and no Ray: a `Model` yields what each pass made of a batch.

Shapes: N vectors of a request, B vectors of a batch, D embedding.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

import numpy as np

WayT = TypeVar("WayT", bound=Hashable)
PassT = TypeVar("PassT")
ResultT = TypeVar("ResultT")

PATIENCE = 0.05  # of the time of the last batch


@dataclass(frozen=True)
class Step(Generic[PassT, ResultT]):
    """What the model says after a pass.

    Attributes:
        shown: of each vector of the batch, what a watcher is told; empty if nobody watches.
        results: of each vector the result; empty before the last pass.
    """

    shown: list[PassT] = field(default_factory=list)
    results: list[ResultT] = field(default_factory=list)


Model = Callable[[np.ndarray, WayT, list[bool]], Iterator[Step[PassT, ResultT]]]
"""(vectors [B, D], how, which of them are watched) -> a `Step` after each pass; runs in the thread of the model."""


@dataclass(frozen=True)
class Done(Generic[ResultT]):
    """A result, and where its time went, in seconds."""

    result: ResultT
    queued_s: float
    model_s: float


@dataclass(eq=False)
class _Request(Generic[WayT, PassT, ResultT]):
    """One call of `Batcher.run`."""

    way: WayT
    vectors: np.ndarray  # [N, D]
    watch: Callable[[int, PassT], None] | None
    future: "asyncio.Future[list[Done[ResultT]]]"
    number: int
    arrived: float = field(default_factory=time.perf_counter)
    waiting: deque[int] = field(default_factory=deque)  # rows that no batch has taken yet
    done: dict[int, Done[ResultT]] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchReport:
    """What is known of a batch when it ends: for metrics."""

    rows: int
    queued_s: list[float]
    model_s: float


class Batcher(Generic[WayT, PassT, ResultT]):
    """Runs a model for many callers of one event loop.

    Args:
        model: what to run; see `Model`.
        rows_at_once: how many vectors of a way of decoding go together.
        on_batch: is told of each batch that ended.
        thread: the one thread that the model runs in; None makes one.
        patience: how long a batch waits for those whom the last one answered, as a share of the last one's time.
    """

    def __init__(
        self,
        model: Model[WayT, PassT, ResultT],
        rows_at_once: Callable[[WayT], int],
        on_batch: Callable[[BatchReport], None] = lambda report: None,
        thread: ThreadPoolExecutor | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._model, self._rows_at_once, self._on_batch = model, rows_at_once, on_batch
        self._requests: list[_Request[WayT, PassT, ResultT]] = []  # with rows that wait, oldest first
        self._thread = thread or ThreadPoolExecutor(1)
        self._numbers = count()
        self._worker: asyncio.Task[None] | None = None
        self._patience = patience
        self._came = asyncio.Event()  # a request
        self._hoped_for, self._until = 0, 0.0  # vectors that are waited for, and until when

    @property
    def waiting(self) -> int:
        """Vectors that no batch has taken yet."""
        return sum(len(request.waiting) for request in self._requests)

    async def run(
        self, vectors: np.ndarray, way: WayT, watch: Callable[[int, PassT], None] | None = None
    ) -> list[Done[ResultT]]:
        """The results of vectors [N, D], in their order.

        Args:
            vectors: at least one.
            way: how to decode them.
            watch: is called on the event loop with a row and what a pass made of it.

        Raises:
            Exception: what the model raised for a batch that one of the vectors was in.
        """
        loop = asyncio.get_running_loop()
        request = _Request(way, vectors, watch, loop.create_future(), next(self._numbers))
        request.waiting.extend(range(len(vectors)))
        self._requests.append(request)
        self._came.set()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            return await request.future
        finally:
            request.waiting.clear()  # also if the caller has gone

    async def _work(self) -> None:
        """Batch after batch, until nothing waits."""
        loop = asyncio.get_running_loop()
        while True:
            await self._gather()
            if not (taken := self._take()):
                return
            start = time.perf_counter()
            try:
                results = await loop.run_in_executor(self._thread, self._run_batch, loop, taken)
            except Exception as error:  # of the model: its callers are told, the next batch has its own chance
                for request, _ in taken:
                    if not request.future.done():
                        request.future.set_exception(error)
                continue
            model_s = time.perf_counter() - start
            for (request, row), result in zip(taken, results, strict=False):  # none, if the batch was given up
                request.done[row] = Done(result, start - request.arrived, model_s)
                if len(request.done) == len(request.vectors) and not request.future.done():
                    request.future.set_result([request.done[row] for row in range(len(request.vectors))])
            self._on_batch(BatchReport(len(taken), [start - request.arrived for request, _ in taken], model_s))
            self._hoped_for = self.waiting + len(results)
            self._until = time.perf_counter() + self._patience * model_s

    async def _gather(self) -> None:
        """Waits for those whom the last batch answered, if that was just now."""
        while (left := self._until - time.perf_counter()) > 0:
            oldest = next((request for request in self._requests if request.waiting), None)
            if oldest is None or self.waiting >= min(self._hoped_for, self._rows_at_once(oldest.way)):
                return
            self._came.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), left)

    def _take(self) -> list[tuple[_Request[WayT, PassT, ResultT], int]]:
        """The next batch: a row of each request in turn, of those that are decoded as the oldest is."""
        self._requests = [request for request in self._requests if request.waiting and not request.future.done()]
        if not self._requests:
            return []
        way = self._requests[0].way
        alike = [request for request in self._requests if request.way == way]
        most = self._rows_at_once(way)
        taken: list[tuple[_Request[WayT, PassT, ResultT], int]] = []
        while alike and len(taken) < most:
            for request in alike[: most - len(taken)]:
                taken.append((request, request.waiting.popleft()))
            alike = [request for request in alike if request.waiting]
        taken.sort(key=lambda item: (item[0].number, item[1]))
        return taken

    def _run_batch(
        self, loop: asyncio.AbstractEventLoop, taken: list[tuple[_Request[WayT, PassT, ResultT], int]]
    ) -> list[ResultT]:
        """In the thread of the model; empty if everybody has gone meanwhile."""
        vectors = np.stack([request.vectors[row] for request, row in taken])  # [B, D]
        watched = [request.watch is not None for request, _ in taken]
        step: Step[PassT, ResultT] = Step()
        for step in self._model(vectors, taken[0][0].way, watched):
            if all(request.future.done() for request, _ in taken):
                return []
            if step.shown:
                loop.call_soon_threadsafe(_tell, taken, step.shown)
        return step.results


def _tell(taken: list[tuple[_Request[WayT, PassT, ResultT], int]], shown: list[PassT]) -> None:
    for (request, row), what in zip(taken, shown, strict=True):
        if request.watch is not None and not request.future.done():
            request.watch(row, what)
