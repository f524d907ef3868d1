"""Counts each request by its route, its encoder and its status: pure ASGI, around the routes."""

import time
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

GONE = 499  # the client hung up before there was an answer
ENCODER_ROUTES = ("invert", "encode")


class Measures(Protocol):
    """Where things are counted, see `serve_app.metrics.GatewayMetrics`."""

    def answered(self, encoder: str, route: str, status: int, seconds: float) -> None:
        """A request has its answer."""
        ...

    def inverted(self, encoder: str, vectors: int) -> None:
        """Vectors have their texts."""
        ...

    def queued(self, encoder: str, vectors: int) -> None:
        """So many vectors are under way now."""
        ...

    def rejected(self, encoder: str, reason: str) -> None:
        """A request was turned away."""
        ...

    def retried(self, encoder: str) -> None:
        """A call is made again."""
        ...


class Measure:
    """Middleware.

    Args:
        app: what answers.
        measures: where it is counted.
    """

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app, self._measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), GONE

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            # `endpoint` and `path_params` are there once a route was found; other paths would be labels without end.
            route, encoder = labels(scope, status)
            self._measures.answered(encoder, route, status, time.perf_counter() - start)


def labels(scope: Scope, status: int) -> tuple[str, str]:
    """The route and the encoder of a request, as few different ones as there are; an unknown encoder is none."""
    path = getattr(scope.get("route"), "path", None)
    if path is None:
        return "other", ""
    encoder = scope.get("path_params", {}).get("encoder", "")
    return path, "" if status == 404 else encoder
