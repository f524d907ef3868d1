"""The access log: one JSON line a request, when it ends, and the request's id; pure ASGI, around any application.

A line says who asked for what, how it ended and how long it took: `time` (of its end), `request_id`, `client`,
`key`, `method`, `path`, `encoder`, `status`, `milliseconds`, `bytes_in`, `bytes_out`, and what the application puts
into `scope["state"]["log"]`. It holds no query string, no text and no vector, unless bodies are asked for. A log
that cannot be written is complained about and never fails a request.
"""

import asyncio
import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.headers import route

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
ENCODER = re.compile(r"/(?:invert|encode)/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?:/|$)")
HUNG_UP = 499  # nginx's number for it: no answer has it
MAX_BODY_CHARS = 4000
MAX_PATH_CHARS = 1000
COMPLAIN_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class AccessLog:
    """Middleware, to be put outside all others.

    It sets `scope["state"]["request_id"]` and the header x-request-id, and reads `scope["state"]`'s "key" (the name
    of the caller's key) and "log" (a dict of what else to say) when the request ends.

    Args:
        app: what answers.
        destination: "-" for standard error, the path of a file, which may be moved away by logrotate, or None.
        log_bodies: add the bodies of question and answer, cut at 4,000 characters.

    Raises:
        ValueError: the file cannot be opened.
    """

    def __init__(self, app: ASGIApp, destination: str | None = "-", log_bodies: bool = False) -> None:
        self._app = app
        self._lines = None if destination is None else open_log(destination)
        self._log_bodies = log_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on, and writes a line at the end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, MAX_BODY_CHARS if self._log_bodies else 0)
        try:
            await self._app(scope, request.receive, request.send)
        except asyncio.CancelledError:  # so Serve ends a request whose client is gone
            request.hung_up = not request.complete
            raise
        except Exception:
            request.status = 500
            raise
        finally:
            if self._lines is not None:
                record = logging.LogRecord("access", logging.INFO, __file__, 0, request.line(), None, None)
                self._lines.handle(record)


class _Request:
    """What is counted while one request passes."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_chars: int) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._body_bytes = 4 * body_chars  # of UTF-8
        self._start = time.perf_counter()
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = request_id(Headers(scope=scope).get("x-request-id", ""))
        self.status: int | None = None
        self.hung_up = self.complete = False
        self._bytes = {"in": 0, "out": 0}
        self._kept = {"in": bytearray(), "out": bytearray()}

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._count("in", message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self.complete:
            self.hung_up = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.state["request_id"]
        try:
            await self._send(message)
        except OSError:  # so uvicorn does
            self.hung_up = True
            raise
        if message["type"] == "http.response.body":
            self._count("out", message.get("body", b""))
            self.complete = self.complete or not message.get("more_body", False)

    def _count(self, way: str, body: bytes) -> None:
        self._bytes[way] += len(body)
        room = self._body_bytes - len(self._kept[way])
        if room > 0:
            self._kept[way] += body[:room]

    def line(self) -> str:
        path = route(self._scope)
        encoder = ENCODER.match(path)
        client = self._scope.get("client")
        fields = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "request_id": self.state["request_id"],
            "client": client[0] if client else None,
            "key": self.state.get("key"),
            "method": self._scope["method"],
            "path": path[:MAX_PATH_CHARS],
            "encoder": encoder[1] if encoder else None,
            "status": HUNG_UP if self.hung_up else self.status,
            "milliseconds": round((time.perf_counter() - self._start) * 1000, 2),
            "bytes_in": self._bytes["in"],
            "bytes_out": self._bytes["out"],
        }
        if self._body_bytes:
            fields |= {"body": _text(self._kept["in"]), "answer": _text(self._kept["out"])}
        return json_line(fields, self.state.get("log"))


def request_id(given: str) -> str:
    """The id that a caller gave if it is a sane one, else a new one."""
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def json_line(fields: dict[str, Any], added: object) -> str:
    """One line of JSON in ASCII, whatever is in it; `fields` stand before and above what an application added."""
    extra = {str(name): value for name, value in added.items()} if isinstance(added, dict) else {}
    try:
        return json.dumps(fields | {name: extra[name] for name in extra.keys() - fields.keys()}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return json.dumps(fields | {"log_error": f"what the application added is not JSON: {error}"}, default=str)


def open_log(destination: str) -> logging.Handler:
    """A handler that writes lines to a file, or to standard error for "-", and swallows what goes wrong.

    Raises:
        ValueError: the file cannot be opened.
    """
    if destination == "-":
        return _StandardError(sys.stderr)
    try:
        return _File(destination, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"access_log: {destination}: {error.strerror}; name a file that can be written") from error


class _Forgiving(logging.Handler):
    """A handler whose failures are said at most once a minute, through the program's own log."""

    _complained_at = -COMPLAIN_EVERY_S

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except (OSError, ValueError):  # its folder is gone, or it is closed: raised outside what logging guards
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            self._complained_at = now
            logger.warning("the access log is losing lines: %s", sys.exc_info()[1])


class _File(_Forgiving, WatchedFileHandler):
    pass


class _StandardError(_Forgiving, logging.StreamHandler):
    pass


def _text(body: bytearray) -> str:
    return body.decode("utf-8", "replace")[:MAX_BODY_CHARS]
