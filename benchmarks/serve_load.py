"""Load that is looked at: arrivals that wait for nobody (Poisson), clients with a vector of their own each, one probe.

An answer's time counts from when its request was due, not from when the generator got round to sending it, so that a
slow server cannot hide behind a queue in front of it.
"""

import asyncio
import http.client
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np

HANGS_S = 90.0  # longer than a server may take with any of its own timeouts
SHOWN = 300  # bytes of an answer that is no 200


@dataclass(frozen=True)
class Answer:
    """What came of one request; times are of time.monotonic().

    Attributes:
        body: number of the body that was sent.
        due: when it was to be sent.
        sent: when it was.
        ended: when its answer was complete, or there was none.
        status: of HTTP; 0: no answer.
        problem: why there was none, or what another status than 200 says.
        text: what was recovered from the first vector, of a 200.
        version: of the checkpoint, of a 200.
        model_ms: milliseconds of its batch in the model, of a 200; the same number for all of a batch.
        retry_after: the header.
    """

    body: int
    due: float
    sent: float
    ended: float
    status: int
    problem: str = ""
    text: str | None = None
    version: str | None = None
    retry_after: str | None = None
    model_ms: float | None = None

    @property
    def took(self) -> float:
        """Seconds since it was due."""
        return self.ended - self.due


def body_of(vector: np.ndarray, **changes: Any) -> str:
    """A request for one vector, as a plain client would write it."""
    return json.dumps({"embedding": [float(value) for value in vector]} | changes)


def arrivals(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Seconds at which requests arrive when they know nothing of each other, `rate` a second."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / rate, size=int(rate * seconds * 1.5) + 100))
    return [float(moment) for moment in times if moment < seconds]


@asynccontextmanager
async def connections() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with as many connections as are asked for at once, which heeds no proxy of the environment."""
    timeout = aiohttp.ClientTimeout(total=HANGS_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


async def ask(session: aiohttp.ClientSession, url: str, bodies: Sequence[str], number: int, due: float) -> Answer:
    """Sends one body and waits for its answer; a failure is one too."""
    sent = time.monotonic()
    text = version = retry_after = model_ms = None
    try:
        headers = {"content-type": "application/json"}
        async with session.post(url, data=bodies[number].encode(), headers=headers) as response:
            content, status, problem = await response.read(), response.status, ""
            retry_after = response.headers.get("retry-after")
        if status == 200:
            found = json.loads(content)
            text, version = found["results"][0]["text"], found.get("version")
            model_ms = found.get("model_milliseconds")
        else:
            problem = content[:SHOWN].decode("utf-8", "replace")
    except TimeoutError:
        status, problem = 0, f"no answer in {HANGS_S:.0f} s"
    except aiohttp.ClientError as error:
        status, problem = 0, f"{type(error).__name__}: {error}"
    except (ValueError, LookupError, TypeError) as error:
        status, problem = 0, f"a 200 that is no answer: {error}"
    ended = time.monotonic()
    return Answer(number, due, sent, ended, status, problem, text, version, retry_after, model_ms)


async def open_loop(url: str, bodies: Sequence[str], rate: float, seconds: float, seed: int = 0) -> list[Answer]:
    """Sends at Poisson arrivals, whatever has been answered; returns when all are answered or have hung."""
    tasks = []
    async with connections() as session:
        began = time.monotonic()
        for number, moment in enumerate(arrivals(rate, seconds, seed)):
            if (wait := began + moment - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(ask(session, url, bodies, number % len(bodies), began + moment)))
            if wait <= 0:  # behind: answers must be read nevertheless
                await asyncio.sleep(0)
        return list(await asyncio.gather(*tasks))


async def closed_loop(
    url: str, bodies: Sequence[str], clients: int, enough: Callable[[], bool], into: list[Answer]
) -> None:
    """Clients that each send their next body when the last is answered, until there is enough.

    Args:
        url: of the inversion.
        bodies: each client begins at another place.
        clients: how many.
        enough: asked before each request.
        into: gets the answers as they come, in the order of their ends.
    """

    async def client(first: int) -> None:
        number = first * len(bodies) // clients
        while not enough():
            answer = await ask(session, url, bodies, number % len(bodies), time.monotonic())
            into.append(answer)
            number += 1
            if not answer.status:  # nobody listens: do not spin
                await asyncio.sleep(0.02)

    async with connections() as session:
        await asyncio.gather(*(client(first) for first in range(clients)))


def in_sequence(url: str, bodies: Sequence[str], count: int, pause: float = 0.0) -> list[Answer]:
    """One request after another over one connection that is kept open; with the thinnest client that there is."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=HANGS_S)
    answers = []
    try:
        for number in range(count):
            body = bodies[number % len(bodies)]
            sent = time.monotonic()
            text = version = retry_after = None
            try:
                connection.request("POST", place.path, body, {"content-type": "application/json"})
                response = connection.getresponse()
                content, status, problem = response.read(), response.status, ""
                ended, retry_after = time.monotonic(), response.getheader("retry-after")
                if status == 200:
                    found = json.loads(content)
                    text, version = found["results"][0]["text"], found.get("version")
                else:
                    problem = content[:SHOWN].decode("utf-8", "replace")
            except (OSError, http.client.HTTPException) as error:
                ended, status, problem = time.monotonic(), 0, f"{type(error).__name__}: {error}"
                connection.close()  # the next request opens another
            answers.append(Answer(number % len(bodies), sent, sent, ended, status, problem, text, version, retry_after))
            time.sleep(pause)
    finally:
        connection.close()
    return answers


def counted(answers: Sequence[Answer]) -> dict[str, int]:
    """Answers by status; those that never came by their problem."""
    found = Counter(str(answer.status) if answer.status else answer.problem for answer in answers)
    return dict(sorted(found.items()))


def failures(answers: Sequence[Answer], expected: Collection[int] = (200,), most: int = 5) -> dict[str, int]:
    """What the answers of other statuses say, the most frequent ones."""
    found = Counter(f"{each.status}: {each.problem}" for each in answers if each.status not in expected)
    return dict(found.most_common(most))
