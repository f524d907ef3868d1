"""The refinement of a replica: its loop runs in a thread of its own, and encoder and model answer it in turn.

`embinv.correcting.refined` is plain code that asks an encoder and a corrector and waits for both. Here it waits in a
thread that is neither the event loop's nor the model's. Texts to embed go over the event loop, where an answer of the
encoder can be awaited. Proposals go to the thread of the model, a batch at a time, and of all calls together only one
batch stands in line there: so those who only invert wait for one batch more than they would otherwise. The proposals
of several calls are not put together, since those of one vector fill a batch already.

A call that was given up ends with what it waits for: texts that are embedded are not waited for any longer, and of
proposals the batch at work is the last.

No Ray here and no HTTP.

Shapes: N vectors, M hypotheses, K texts, D embedding.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from embinv.correcting import RewritingCorrector, refined
from embinv.decoding.refine import Corrector
from embinv.encoders.spec import EncoderSpec
from embinv.inversion import Inversion
from embinv.inverter import TextInverter
from serve_app.batching import BatchReport
from serve_app.schemas import Refinement

AT_ONCE = 8  # calls; the others wait, for encoder and model have enough to do with these

ResultT = TypeVar("ResultT")
Proposals = Sequence[Sequence[Inversion]]
Encode = Callable[[list[str]], Coroutine[Any, Any, np.ndarray]]
"""K texts -> [K, D], on the event loop."""


@dataclass(frozen=True)
class RefinedTexts:
    """What came of a call.

    Attributes:
        inversions: of each vector one, with its cosine and encoder calls.
        model_s: seconds that the model was at the proposals.
    """

    inversions: list[Inversion]
    model_s: float


class Refiner:
    """Refines for the callers of one event loop.

    Args:
        inverter: made the first texts.
        thread: the one that its model runs in.
        encode: by the encoder of the inverter's vectors.
        on_batch: is told of each batch of proposals.
        corrector: the one of a seed, which proposes in the thread of the model; None has the inverter rewrite parts of
            a text.
    """

    def __init__(
        self,
        inverter: TextInverter,
        thread: ThreadPoolExecutor,
        encode: Encode,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
        corrector: Callable[[int], Corrector[Inversion]] | None = None,
    ) -> None:
        self._inverter, self._thread, self._encode = inverter, thread, encode
        self._on_batch, self._corrector = on_batch, corrector or partial(RewritingCorrector, inverter)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="refinement")
        self._turn = asyncio.Lock()  # whose batch of proposals stands in line

    async def run(
        self,
        vectors: np.ndarray,
        first: Sequence[Sequence[Inversion]],
        refinement: Refinement,
        seed: int,
        on_step: Callable[[int, Inversion], None] | None = None,
    ) -> RefinedTexts:
        """Refines the texts of vectors [N, D].

        Args:
            vectors: what was inverted.
            first: of each vector, what it was inverted to.
            refinement: how long, and how broadly.
            seed: of what is proposed.
            on_step: is called on the event loop with a row and its closest inversion so far, see `refined`.

        Raises:
            Exception: what the encoder or the corrector raised.
        """
        loop = asyncio.get_running_loop()
        propose = partial(self._propose, self._corrector(seed))
        call = _Call(self._inverter.config.pairs.encoder, self._encode, propose, loop)

        def tell(row: int, best: Inversion) -> None:
            if on_step is not None:
                loop.call_soon_threadsafe(on_step, row, best)

        work = partial(
            refined,
            self._inverter,
            vectors,
            first,
            call,
            refinement.steps,
            refinement.beam,
            corrector=call,
            on_step=tell,
        )
        try:
            inversions = await loop.run_in_executor(self._threads, copy_context().run, work)
        finally:
            call.give_up()
        return RefinedTexts(inversions, call.model_s)

    async def _propose(
        self, corrector: Corrector[Inversion], targets: np.ndarray, texts: list[str], own: np.ndarray, count: int
    ) -> tuple[Proposals, float]:
        """Proposals for M hypotheses and the seconds that they took, as many at a time as a batch has room for."""
        found: list[Sequence[Inversion]] = []
        spent, size = 0.0, max(1, self._inverter.batch_size // count)
        for start in range(0, len(texts), size):
            part = slice(start, start + size)
            work = partial(corrector.propose, targets[part], texts[part], own[part], count)
            arrived = time.perf_counter()
            async with self._turn:
                some, began, seconds = await asyncio.get_running_loop().run_in_executor(self._thread, _timed, work)
            self._on_batch(BatchReport(len(texts[part]) * count, [began - arrived], seconds))
            found += some
            spent += seconds
        return found, spent


class _Call:
    """One call as its thread sees it: an encoder and a corrector, as long as somebody waits for what comes of it.

    Args:
        spec: of the encoder.
        encode: see `Encode`.
        propose: proposals and their seconds, on the event loop; see `embinv.decoding.refine.Corrector`.
        loop: the event loop.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        encode: Encode,
        propose: Callable[[np.ndarray, list[str], np.ndarray, int], Coroutine[Any, Any, tuple[Proposals, float]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.spec, self.model_s = spec, 0.0
        self._encode, self._propose, self._loop = encode, propose, loop
        self._awaited: concurrent.futures.Future[Any] | None = None
        self._given_up = False

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See `embinv.encoders.base.Encoder`."""
        return self._result(self._encode(list(texts)))

    def propose(self, targets: np.ndarray, texts: list[str], own: np.ndarray, count: int) -> Proposals:
        """See `embinv.decoding.refine.Corrector`."""
        found, seconds = self._result(self._propose(targets, texts, own, count))
        self.model_s += seconds
        return found

    def give_up(self) -> None:
        """On the event loop: what is awaited now is the last."""
        self._given_up = True
        if self._awaited is not None:
            self._awaited.cancel()

    def _result(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """What comes of `work` on the event loop; raises `concurrent.futures.CancelledError` after `give_up`."""
        self._awaited = awaited = asyncio.run_coroutine_threadsafe(work, self._loop)
        if self._given_up:  # between two questions
            awaited.cancel()
        return awaited.result()


def _timed(work: Callable[[], ResultT]) -> tuple[ResultT, float, float]:
    """The result, when it began, and the seconds it took."""
    began = time.perf_counter()
    result = work()
    return result, began, time.perf_counter() - began
