"""The encoders that are served, as the gateway sees them: which there are, and calls to them by handle.

An application of this cluster that holds an `InverterDeployment` is an encoder of its name; so a new one is known
without a word to the gateway. A call to a replica that dies is made again at another one: decoding is determined by
what is asked, so the answer is the same, and of a stream only what was not sent yet is sent.

Shapes: N vectors, D embedding.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import numpy as np
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatusOverview

from embinv.decoding.options import Choices
from serve_app.answers import STARTING_S, Answer, EncoderUnavailable, Seen, Served, UnknownEncoder
from serve_app.schemas import Description, Refine

logger = logging.getLogger(__name__)

INVERTER, ENCODER = "InverterDeployment", "EncoderDeployment"
REFRESH_S = 2.0
AWAITED_S = 0.2  # the same, while somebody asks for one that is not known yet
DESCRIBE_S = 10.0  # that a request waits for an encoder which runs to say what it is
TRIES = 4  # of a call whose replica dies
PART = 64  # vectors of one call: of a large request replicas get parts, and a dead one costs one part
DIED = (RayActorError, grpc.RpcError)
USABLE = ("RUNNING", "DEPLOYING", "UNHEALTHY")  # of these, replicas may answer

ResultT = TypeVar("ResultT")


class ServedEncoders:
    """The encoders of this cluster.

    Args:
        on_retry: is told the name of an encoder whose call is made again.
    """

    def __init__(self, on_retry: Callable[[str], None] = lambda name: None) -> None:
        self._on_retry = on_retry
        self._served: dict[str, Served] = {}
        self._handles: dict[tuple[str, str], DeploymentHandle] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._refreshed = -REFRESH_S
        self._refreshing = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None

    async def known(self) -> dict[str, Served]:
        """All encoders by name."""
        self._start()
        await self._refresh()
        return dict(sorted(self._served.items()))

    async def describe(self, name: str) -> Description:
        """What an encoder is.

        Raises:
            UnknownEncoder: there is none of that name.
            EncoderUnavailable: it has not started, or has failed to.
        """
        self._start()
        if name not in self._served or self._served[name].description is None:
            await self._refresh(awaited=True)
            if name in self._asked:
                await asyncio.wait({self._asked[name]}, timeout=DESCRIBE_S)
        served = self._served.get(name)
        if served is None:
            raise UnknownEncoder(name, sorted(self._served))
        still_answers = served.replicas and served.description is not None
        if served.status not in USABLE and not still_answers:
            raise EncoderUnavailable(f"encoder {name!r} is {served.status}; `serve status` says why")
        if served.description is None:
            raise EncoderUnavailable(f"encoder {name!r} is starting; try again in {STARTING_S} s")
        return served.description

    async def invert(self, name: str, vectors: np.ndarray, choices: Choices, refine: Refine) -> list[Answer]:
        """The texts of vectors [N, D], in parts.

        Raises:
            EncoderUnavailable: its replicas die again and again, or Serve does not take the call.
        """
        handle = self._handle(INVERTER, name)
        parts = [vectors[start : start + PART] for start in range(0, len(vectors), PART)]
        calls = [self._call(name, lambda part=part: handle.invert.remote(part, choices, refine)) for part in parts]
        return await _all(calls)

    async def watch(
        self, name: str, vectors: np.ndarray, choices: Choices, refine: Refine
    ) -> AsyncGenerator[Seen | Answer, None]:
        """What each pass and correction makes of vectors [N, D], and at the end the answer.

        Raises:
            EncoderUnavailable: its replicas die again and again, or Serve does not take the call.
        """
        handle = self._handle(INVERTER, name).options(stream=True)
        sent = [0] * len(vectors)
        for number in range(1, TRIES + 1):
            response = handle.watch.remote(vectors, choices, refine)
            try:
                with self._attempt(name, number):
                    async for event in response:
                        if isinstance(event, Answer):
                            yield event
                        elif event.step > sent[event.row]:
                            sent[event.row] = event.step
                            yield event
                    return
            finally:
                response.cancel()

    async def encode(self, name: str, texts: list[str]) -> np.ndarray:
        """The vectors [N, D] of texts, by the embedding model itself.

        Raises:
            EncoderUnavailable: its replicas die again and again, or Serve does not take the call.
        """
        handle = self._handle(ENCODER, name)
        return await self._call(name, lambda: handle.encode.remote(texts))

    async def _call(self, name: str, call: Callable[[], Any]) -> Any:
        for number in range(1, TRIES + 1):
            response = call()
            try:
                with self._attempt(name, number):
                    return await response
            except asyncio.CancelledError:
                response.cancel()
                raise
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def _attempt(self, name: str, number: int) -> Iterator[None]:
        """Goes on after a replica's death, to the next try; the last one raises EncoderUnavailable."""
        try:
            yield
        except DIED as error:
            logger.warning("a replica of %s died (try %d of %d): %s", name, number, TRIES, type(error).__name__)
            if number == TRIES:
                raise EncoderUnavailable(f"replicas of encoder {name!r} keep dying; `serve status` says why") from error
            self._on_retry(name)
        except RayServeException as error:
            raise EncoderUnavailable(f"encoder {name!r} cannot be reached now") from error

    def _handle(self, deployment: str, name: str) -> DeploymentHandle:
        key = (deployment, name)
        if key not in self._handles:
            self._handles[key] = serve.get_deployment_handle(deployment, name, _check_exists=False)
        return self._handles[key]

    async def _refresh(self, awaited: bool = False) -> None:
        """Asks Serve what there is, if that was not done just now."""
        async with self._refreshing:
            if time.monotonic() - self._refreshed < (AWAITED_S if awaited else REFRESH_S):
                return
            status = await asyncio.to_thread(serve.status)
            # While an application is built anew its deployments are not listed; it is the encoder that it was.
            found = {
                name: (application.status.value, application.last_deployed_time_s, _may_answer(application))
                for name, application in status.applications.items()
                if INVERTER in application.deployments or (not application.deployments and name in self._served)
            }
            self._refreshed = time.monotonic()
        for name in self._served.keys() - found.keys():
            del self._served[name]
        for name, (state, deployed, replicas) in found.items():
            served = self._served.setdefault(name, Served(state, deployed))
            served.status, served.deployed, served.replicas = state, deployed, replicas
            stale = served.described != deployed
            if state == "RUNNING" and stale and (name not in self._asked or self._asked[name].done()):
                self._asked[name] = asyncio.create_task(self._ask(name, deployed))

    async def _ask(self, name: str, deployed: float) -> None:
        """Has a replica describe itself."""
        try:
            description = await self._call(name, lambda: self._handle(INVERTER, name).describe.remote())
        except (EncoderUnavailable, RayError) as error:
            logger.warning("encoder %s does not describe itself: %s", name, error)
            return
        if name in self._served:
            self._served[name].description, self._served[name].described = description, deployed

    def _start(self) -> None:
        """Begins to look again and again, once there is an event loop to do it in."""
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            try:
                await self._refresh()
            except RayError as error:
                logger.warning("Serve's controller does not answer: %s", error)
            await asyncio.sleep(REFRESH_S)


def _may_answer(application: ApplicationStatusOverview) -> bool:
    """Whether replicas run; where a deployment failed before it began, Serve lists none, and leaves those of before."""
    inverter = application.deployments.get(INVERTER)
    return inverter is None or inverter.replica_states.get("RUNNING", 0) > 0


async def _all(calls: list[Awaitable[ResultT]]) -> list[ResultT]:
    """All results; if one fails, the other calls are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
