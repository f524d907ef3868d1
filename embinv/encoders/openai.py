"""Vectors from a server that speaks OpenAI's `POST /v1/embeddings`: OpenAI itself, vLLM, TEI, Infinity.

Sent are `model`, `input` (a list of texts), `encoding_format: base64` and, if the recipe has it, `dimensions`
(https://platform.openai.com/docs/api-reference/embeddings/create). Many requests are in flight at once; one that
fails for a reason that may pass is sent again, and a text that the server refuses is found by halving its batch.
Nothing is loaded here and no text is shortened: that is the server's part.

N texts, R texts in one request, W length of the server's vectors, D = spec.dim.
"""

import asyncio
import logging
import os
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
from anyio.from_thread import start_blocking_portal
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from embinv.encoders.openai_answers import PassingFailure, Refusal, RefusedTexts, Rejection, failure, read_vectors
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.25  # doubles with each try
LONGEST_WAIT_S = 60.0  # also of what a Retry-After may ask for
PROBE = "text"  # no server has a reason to refuse it


class _NotFinite(PassingFailure):
    """Vectors [R, D] of which some are NaN; all the others are good."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__("a vector with NaN, infinity or zeros only")
        self.vectors = vectors


class OpenAIEncoder:
    """Encodes through `/v1/embeddings`, as `EncoderSpec` says.

    Calls may come from any thread: one event loop in a thread of its own serves them all, with one pool of
    connections. A proxy named in the environment is used, as httpx does.

    Args:
        spec: the recipe. The key is read now from the environment variable `spec.api_key_env`, and sent to
            `spec.base_url` whoever that is.
        settings: of these, `request_rows`, `requests`, `timeout_s` and `retries` count.

    Raises:
        ValueError: the URL is none, or the key cannot stand in a header.
    """

    def __init__(self, spec: EncoderSpec, settings: EncodingSettings) -> None:
        self.spec, self.settings = spec, settings
        self.url = _endpoint(spec.base_url)
        self._key = _key_in(spec.api_key_env)
        self._width: int | None = None  # W, known once the server has given a good vector
        self._said_too_many = False
        self._in_flight = asyncio.Semaphore(settings.requests)
        client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=None,  # the whole request has a deadline instead: a server that trickles is late too
            limits=httpx.Limits(max_connections=settings.requests, max_keepalive_connections=settings.requests),
        )
        opened = ExitStack()
        self._portal = opened.enter_context(start_blocking_portal(name="embeddings"))
        self._client = opened.enter_context(self._portal.wrap_async_context_manager(client))
        # Also at the interpreter's end, while threads still run: left to the garbage collector, it would wait for ever.
        self._closed = weakref.finalize(self, opened.close)

    def encode(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
        """Returns [N, D] float32 vectors; row i belongs to text i, in whatever order the answers came.

        Raises:
            RefusedTexts: some texts have no vector; it carries the vectors of the rest.
            ValueError: the server cannot be used: no answer in all tries, a wrong key, an unknown model, vectors
                shorter than `spec.dim`.
        """
        vectors, good_rows, rejections = self.encode_or_reject(texts)
        if rejections:
            raise RefusedTexts(vectors, good_rows, rejections)
        return vectors

    def encode_or_reject(self, texts: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Rejection]]:
        """Encodes what the server takes.

        Returns:
            [M, D] float32 vectors, [M] int64 rows of the texts that they belong to, and the N - M rejections; all
            by row.

        Raises:
            ValueError: the server cannot be used, as for `encode`.
        """
        vectors = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        refused: dict[int, str] = {}  # row -> reason
        work = self._portal.start_task_soon(self._encode_all, texts, vectors, refused)
        try:
            work.result()
        except BaseException:  # Ctrl-C, for one, ends the waiting but not the work
            work.cancel()
            raise
        for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            refused[row] = f"a vector with NaN, infinity or zeros only in {self.settings.retries + 1} tries"
        good_rows = np.setdiff1d(np.arange(len(texts)), list(refused))
        rejections = [Rejection(row, reason) for row, reason in sorted(refused.items())]
        return (vectors[good_rows] if refused else vectors), good_rows, rejections

    def close(self) -> None:
        """Closes the connections and ends the thread, as the program's end does; no call may be at work."""
        self._closed()

    async def _encode_all(
        self, texts: Sequence[str] | np.ndarray, vectors: np.ndarray, refused: dict[int, str]
    ) -> None:
        """Fills `vectors` [N, D] and `refused`; the first failure ends the other requests."""
        rows, size = range(len(texts)), self.settings.request_rows
        try:
            async with asyncio.TaskGroup() as group:
                for start in range(0, len(texts), size):
                    group.create_task(self._encode_rows(texts, rows[start : start + size], vectors, refused))
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__

    async def _encode_rows(
        self, texts: Sequence[str] | np.ndarray, rows: range, vectors: np.ndarray, refused: dict[int, str]
    ) -> None:
        """One request, or the two halves of one that was refused."""
        try:
            vectors[rows.start : rows.stop] = await self._ask([texts[row] for row in rows])
            return
        except Refusal as refusal:
            reason = str(refusal)
        if self._width is None:
            await self._require_it_takes_any()
        if len(rows) == 1:
            refused[rows[0]] = reason
            return
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            await self._encode_rows(texts, half, vectors, refused)
        if not self._said_too_many and not any(row in refused for row in rows):
            self._said_too_many = True
            logger.warning(
                "%s refuses %d texts in one request (%s) and takes each half; lower encoding.request_rows",
                self.url,
                len(rows),
                reason,
            )

    async def _require_it_takes_any(self) -> None:
        """Tells a server that refuses every request from one that refuses a text, before anything is halved."""
        try:
            await self._ask([PROBE])
        except Refusal as refusal:
            raise ValueError(
                f"encoder.base_url: {self.url} refuses any text, even {PROBE!r}: {refusal}; check encoder.model, "
                "encoder.dimensions and encoder.prompt"
            ) from refusal

    async def _ask(self, texts: list[str]) -> np.ndarray:
        """[R, D] for R texts, in as many tries as are allowed; a vector that is NaN in all of them stays in."""
        tries = self.settings.retries + 1
        retrying = AsyncRetrying(
            stop=stop_after_attempt(tries),
            wait=_wait_s,
            retry=retry_if_exception_type(PassingFailure),
            before_sleep=self._log_failure,
            reraise=True,
        )
        # A request that waits for its next try keeps its place: a server that is busy gets fewer at a time.
        async with self._in_flight:
            try:
                return await retrying(self._ask_once, texts)
            except _NotFinite as last:
                return last.vectors
            except PassingFailure as last:
                raise ValueError(
                    f"encoder.base_url: {self.url} gave no usable answer in {tries} tries, the last time: {last}; "
                    "see whether it is up, or raise encoding.retries or encoding.timeout_s"
                ) from last

    async def _ask_once(self, texts: list[str]) -> np.ndarray:
        prompt = self.spec.prompt or ""
        body: dict[str, Any] = {"model": self.spec.model, "input": [prompt + text for text in texts]}
        body["encoding_format"] = "base64"
        if self.spec.dimensions is not None:
            body["dimensions"] = self.spec.dimensions
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                response = await self._client.post(self.url, json=body)
        except TimeoutError as error:
            raise PassingFailure(f"no answer within encoding.timeout_s, {self.settings.timeout_s:g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise PassingFailure(f"{type(error).__name__} {error}".strip()) from error
        except UnicodeEncodeError as error:
            raise Refusal(f"not a text in Unicode: {error.reason}") from error
        if response.status_code != httpx.codes.OK:
            raise failure(response, self.spec, self._key)
        return self._fit(read_vectors(response.content, len(texts)))

    def _fit(self, vectors: np.ndarray) -> np.ndarray:
        """[R, W] as the server gave them -> [R, D] as the recipe says."""
        width, spec = vectors.shape[1], self.spec
        if self._width is None and spec.dimensions not in (None, width):
            raise ValueError(
                f"encoder.dimensions is {spec.dimensions}, but {self.url} gives {width} for {spec.model}; remove "
                "encoder.dimensions, and encoder.dim alone will truncate"
            )
        if self._width is None and width < spec.dim:
            raise ValueError(
                f"encoder.dim is {spec.dim}, but {self.url} gives {width} dimensions for {spec.model}; "
                "lower encoder.dim"
            )
        if width != (self._width or width):
            raise PassingFailure(f"vectors of {width} numbers instead of {self._width}")
        vectors = vectors[:, : spec.dim]
        if spec.normalized:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # [R, 1]
            vectors = vectors / np.where(norms == 0, np.nan, norms)  # zeros have no direction
        finite = np.isfinite(vectors).all(axis=1)  # [R]
        if finite.any():
            self._width = width
        if finite.all():
            return vectors
        if self._width is None:
            raise PassingFailure("no finite vector at all")
        raise _NotFinite(vectors)

    def _log_failure(self, state: RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        reason, seconds = state.outcome.exception(), state.next_action.sleep
        following, tries = state.attempt_number + 1, self.settings.retries + 1
        logger.warning("%s: %s; try %d of %d follows in %.1f s", self.url, reason, following, tries, seconds)


def _endpoint(base_url: str | None) -> str:
    assert base_url is not None  # EncoderSpec sees to it
    try:
        url = httpx.URL(base_url)
        usable = url.scheme in ("http", "https") and url.host
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise ValueError(f"encoder.base_url {base_url!r} is no URL of a server; give one like http://host:8000/v1")
    return base_url.rstrip("/") + "/embeddings"


def _key_in(variable: str) -> str:
    """The key, without the line end that a file leaves behind it; empty if there is none."""
    key = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(
            f"the environment variable {variable} (encoder.api_key_env) holds characters that cannot stand in an HTTP "
            "header; set it to the key alone"
        )
    return key


def _wait_s(state: RetryCallState) -> float:
    """Exponential with jitter; where the server asked for a wait, on top of that."""
    backoff = wait_exponential_jitter(multiplier=FIRST_WAIT_S, jitter=FIRST_WAIT_S, max=LONGEST_WAIT_S)(state)
    reason = state.outcome.exception() if state.outcome else None
    asked = reason.retry_after_s if isinstance(reason, PassingFailure) else None
    return backoff if asked is None else min(asked, LONGEST_WAIT_S) + backoff
