"""The body of a request as bytes, within its limits; and whether the client is still there."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

ResultT = TypeVar("ResultT")


class BodyTooLarge(Exception):
    """A body of more bytes than are let in."""


class BodyTooSlow(Exception):
    """A body that did not come in time."""


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The whole body.

    Args:
        request: its head has come.
        most: bytes that are let in.
        seconds: until the last of them must be there.

    Raises:
        BodyTooLarge: it is larger, or says that it will be.
        BodyTooSlow: it is not whole in time.
        ClientDisconnect: the client has gone.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise BodyTooLarge
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise BodyTooLarge
    except TimeoutError as error:
        raise BodyTooSlow from error
    return bytes(body)


async def while_connected(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """The result of `work`, which is cancelled if the client hangs up first; the body must have been read.

    Raises:
        ClientDisconnect: it hung up.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
