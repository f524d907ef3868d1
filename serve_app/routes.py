"""What each route of the server does.

No model and no Ray here: the routes speak to a `Backend`, so that they can be tested without either. Which paths they
have, and what errors are answered with, is in ingress.py.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AbstractContextManager, ExitStack, aclosing
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from fastapi import HTTPException, Path, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from embinv.decoding.options import Choices
from serve_app.admission import Admission
from serve_app.answers import Answer, EncoderUnavailable, Seen, Served, answer_json, server_sent
from serve_app.bodies import BodyTooLarge, BodyTooSlow, read_body, while_connected
from serve_app.keys import KeyRing
from serve_app.measuring import Measures
from serve_app.schemas import (
    MAX_CANDIDATES,
    MAX_REFINE_BEAM,
    MAX_REFINE_STEPS,
    MAX_STEPS,
    USUAL_STEPS,
    Description,
    EncoderEntry,
    EncodeRequest,
    EncodeResponse,
    EncoderList,
    Health,
    InvertRequest,
    Readiness,
    Refine,
    Refinement,
    parse_request,
)
from serve_app.settings import GatewayArgs
from serve_app.vectors import to_base64, vectors_of

logger = logging.getLogger(__name__)

SLOW_S = 5  # to come again after a timeout

ResultT = TypeVar("ResultT")


class Backend(Protocol):
    """The encoders that are served, see `serve_app.encoders.ServedEncoders`."""

    async def known(self) -> Mapping[str, Served]:
        """All of them by name."""
        ...

    async def describe(self, name: str) -> Description:
        """What one is; raises UnknownEncoder or EncoderUnavailable."""
        ...

    async def invert(self, name: str, vectors: np.ndarray, choices: Choices, refine: Refine) -> list[Answer]:
        """The texts of vectors [N, D]."""
        ...

    def watch(
        self, name: str, vectors: np.ndarray, choices: Choices, refine: Refine
    ) -> AsyncGenerator[Seen | Answer, None]:
        """The same, with what each pass and each correction makes before the answer."""
        ...

    async def encode(self, name: str, texts: list[str]) -> np.ndarray:
        """The vectors of texts."""
        ...


EncoderName = Annotated[str, Path(description="name of a served encoder, see GET /encoders")]
Inversion = tuple[Description, np.ndarray, Choices, Refine]


class Routes:
    """What the routes do.

    Args:
        backend: the encoders.
        settings: limits.
        admission: how much is under way.
        measures: where it is counted.
        keys: who may ask.
    """

    def __init__(
        self, backend: Backend, settings: GatewayArgs, admission: Admission, measures: Measures, keys: KeyRing
    ) -> None:
        self._backend, self._settings, self._admission = backend, settings, admission
        self._measures, self._keys = measures, keys

    async def encoders(self) -> EncoderList:
        """The encoders that are served, with the figures of their model cards."""
        known = await self._backend.known()
        limits = {
            "vectors": self._settings.max_vectors,
            "steps": MAX_STEPS,
            "candidates": MAX_CANDIDATES,
            "refine_steps": MAX_REFINE_STEPS,
            "refine_beam": MAX_REFINE_BEAM,
        }
        entries = []
        for name, served in known.items():
            described = served.description.model_dump() if served.description else {}
            if served.description is not None:
                described["defaults"] = {
                    "strategy": served.description.strategies[0],
                    "steps": USUAL_STEPS,
                    "refine": Refinement().model_dump() if served.description.encode else None,
                }
            entries.append(EncoderEntry(name=name, status=served.status, limits=limits, **described))
        return EncoderList(encoders=entries, key_required=self._keys.required)

    async def healthz(self) -> Health:
        """Answers while this process lives."""
        return Health()

    async def readyz(self) -> JSONResponse:
        """200 once every encoder answers, 503 before."""
        known = await self._backend.known()
        ready = bool(known) and all(s.status == "RUNNING" and s.description is not None for s in known.values())
        readiness = Readiness(
            status="ready" if ready else "not ready", encoders={name: served.status for name, served in known.items()}
        )
        return JSONResponse(readiness.model_dump(), 200 if ready else 503)

    async def invert(self, encoder: EncoderName, request: Request) -> Response:
        """Recovers the text behind each vector."""
        description, vectors, choices, refine = await self._read(encoder, request)
        start = time.perf_counter()
        with self._room(encoder, vectors, choices, refine):
            answers = await self._in_time(request, self._backend.invert(encoder, vectors, choices, refine))
        self._measures.inverted(encoder, len(vectors))
        body = answer_json(encoder, description.encoder, answers, time.perf_counter() - start)
        return Response(body, media_type="application/json")

    async def stream(self, encoder: EncoderName, request: Request) -> StreamingResponse:
        """Recovers the text behind each vector, and shows its way there.

        Server-sent events: `pass` after each pass, `correction` where `refine` is an object, then `result`.
        """
        description, vectors, choices, refine = await self._read(encoder, request)
        held = ExitStack()
        held.enter_context(
            self._room(encoder, vectors, choices, refine)
        )  # before the answer begins: a full queue is a 429
        return EventStream(self._events(encoder, description, vectors, choices, refine), held)

    async def _events(
        self, encoder: str, description: Description, vectors: np.ndarray, choices: Choices, refine: Refine
    ) -> AsyncGenerator[bytes, None]:
        start = time.perf_counter()
        try:
            async with (
                asyncio.timeout(self._settings.request_timeout_s),
                aclosing(self._backend.watch(encoder, vectors, choices, refine)) as events,
            ):
                async for event in events:
                    if isinstance(event, Answer):
                        seconds = time.perf_counter() - start
                        body = answer_json(encoder, description.encoder, [event], seconds)
                        self._measures.inverted(encoder, len(vectors))
                        yield server_sent("result", body)
                    else:
                        yield server_sent(event.name, event.event)
        except TimeoutError:
            yield server_sent("error", {"status": 503, "detail": self._late()})
        except EncoderUnavailable as error:
            yield server_sent("error", {"status": 503, "detail": str(error)})
        except Exception:
            logger.exception("a stream of %s failed", encoder)
            yield server_sent("error", {"status": 500, "detail": "the server failed; its log says why"})

    async def encode(self, encoder: EncoderName, request: Request) -> EncodeResponse:
        """The vectors of texts, where the embedding model is served beside its inverter."""
        description = await self._backend.describe(encoder)
        if not description.encode:
            raise HTTPException(404, f"no embedding model is served for {encoder!r}; set `encode: true` in its args")
        body = await self._body(request)
        try:
            asked = parse_request(EncodeRequest, body, description.dim)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        texts, start = asked.all, time.perf_counter()
        with self._admission.enter(encoder, len(texts)):
            vectors = await self._in_time(request, self._backend.encode(encoder, texts))
        milliseconds = round((time.perf_counter() - start) * 1000, 2)
        as_text = asked.encoding_format == "base64"
        return EncodeResponse(
            model=encoder,
            encoder=description.encoder,
            embeddings=[to_base64(vector) if as_text else vector.tolist() for vector in vectors],
            milliseconds=milliseconds,
        )

    async def authenticate(self, request: Request) -> None:
        """Lets a request pass that brings a key, or any where none is asked for.

        Raises:
            HTTPException: 401 without a key that is known.
        """
        if not self._keys.required:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        name = self._keys.match(key.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            self._measures.rejected("", "key")
            raise HTTPException(401, "send a key: `Authorization: Bearer <key>`", {"WWW-Authenticate": "Bearer"})
        request.state.key = name

    async def _body(self, request: Request) -> bytes:
        try:
            return await read_body(request, self._settings.max_body_bytes, self._settings.body_timeout_s)
        except BodyTooLarge as error:
            self._measures.rejected("", "body")
            most = self._settings.max_body_bytes
            raise HTTPException(413, f"the body is larger than {most:,} bytes; send fewer vectors at a time") from error
        except BodyTooSlow as error:
            self._measures.rejected("", "body")
            seconds = self._settings.body_timeout_s
            raise HTTPException(408, f"the body was not there after {seconds:g} s; send it at once") from error

    async def _read(self, encoder: str, request: Request) -> Inversion:
        description = await self._backend.describe(encoder)
        body = await self._body(request)
        try:
            asked = parse_request(InvertRequest, body, description.dim)
            choices = asked.choices(description.strategies)
            vectors = vectors_of(asked, description.dim, self._settings.max_vectors)
            if asked.refine and not description.encode:
                raise ValueError("refine asks the embedding model, and none is served here; send refine false")
            if (texts := len(vectors) * texts_each(choices, asked.refine)) > self._settings.max_vectors:
                counted = "embeddings x candidates"
                if isinstance(asked.refine, Refinement):
                    counted = "embeddings x (candidates + refine's steps x beam x beam)"
                most = self._settings.max_vectors
                raise ValueError(f"{counted} are {texts} texts; send at most {most} in one request")
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        log: dict[str, Any] = {"vectors": len(vectors), "strategy": choices.strategy, "steps": choices.steps}
        if isinstance(asked.refine, Refinement):
            log["refine"] = asked.refine.model_dump()
        request.state.log = log
        return description, vectors, choices, asked.refine

    def _room(
        self, encoder: str, vectors: np.ndarray, choices: Choices, refine: Refine
    ) -> AbstractContextManager[None]:
        return self._admission.enter(encoder, len(vectors) * texts_each(choices, refine))

    async def _in_time(self, request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                return await while_connected(request, work)
        except TimeoutError as error:
            raise EncoderUnavailable(self._late(), SLOW_S) from error

    def _late(self) -> str:
        return f"no answer within {self._settings.request_timeout_s:g} s; ask for fewer vectors or steps at a time"


def texts_each(choices: Choices, refine: Refine) -> int:
    """Texts that may be written for one vector, which is what it counts for: samples, and proposals to correct them."""
    return choices.samples + (refine.proposals if isinstance(refine, Refinement) else 0)


class EventStream(StreamingResponse):
    """Server-sent events; what was held for them is let go when they end, whoever ended them."""

    def __init__(self, events: AsyncGenerator[bytes, None], held: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._events, self._held = events, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends them."""
        with self._held:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._events.aclose()
