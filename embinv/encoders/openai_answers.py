"""What the answers of a `/v1/embeddings` server mean: vectors, a failure that may pass, a refusal, or a mistake.

The servers agree on a good answer (https://platform.openai.com/docs/api-reference/embeddings/object) and differ in
where they put the words of a bad one. Nothing is sent here (openai.py).

R texts in the request, W length of the server's vectors.
"""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import numpy as np

from embinv.encoders.spec import EncoderSpec

TIMED_OUT, TOO_MANY = 408, 429
OF_TEXTS = {400, 413, 422}
LONGEST_MESSAGE = 300  # characters of a server's own words


class PassingFailure(Exception):
    """A failure that another try may mend; `retry_after_s` is the wait that the server asked for."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Refusal(Exception):
    """The server understands the request and will not do it: the fault of one text, or of too many at once."""


@dataclass(frozen=True)
class Rejection:
    """A text without a vector.

    Attributes:
        row: which of the texts that were given.
        reason: the server's status and message, or what was wrong with the vector.
    """

    row: int
    reason: str


class RefusedTexts(ValueError):
    """Some texts have no vector; carries the vectors of all the others.

    Attributes:
        vectors: [M, D] float32, of the texts that have one.
        good_rows: [M] int64, which they are.
        rejections: the other N - M, by row.
    """

    def __init__(self, vectors: np.ndarray, good_rows: np.ndarray, rejections: list[Rejection]) -> None:
        super().__init__(vectors, good_rows, rejections)  # its own arguments, so that it can be pickled
        self.vectors, self.good_rows, self.rejections = vectors, good_rows, rejections

    def __str__(self) -> str:
        first, total = self.rejections[0], len(self.rejections) + len(self.good_rows)
        return f"no vector for {len(self.rejections)} of {total} texts, row {first.row} for one: {first.reason}"


def read_vectors(body: bytes, count: int) -> np.ndarray:
    """The vectors of a good answer, [R, W] float32, in the order of its `index` fields; NaN is left in.

    Args:
        body: JSON, its vectors base64 of little-endian float32 or lists of numbers.
        count: R.

    Raises:
        PassingFailure: it is not a whole answer to R texts.
    """
    try:
        items = json.loads(body)["data"]
        found = {item["index"]: _vector(item["embedding"]) for item in items}
    except (ValueError, TypeError, KeyError) as error:
        raise PassingFailure(f"a malformed answer ({type(error).__name__}: {error})") from error
    if len(items) != count:
        raise PassingFailure(f"{len(items)} items for {count} texts")
    if set(found) != set(range(count)):
        raise PassingFailure(f"items whose index fields are not 0 to {count - 1}")
    vectors = [found[index] for index in range(count)]
    shapes = {vector.shape for vector in vectors}
    if len(shapes) > 1 or any(vector.ndim != 1 or vector.size == 0 for vector in vectors):
        raise PassingFailure(f"vectors of shapes {sorted(shapes)} in one answer")
    return np.stack(vectors)


def _vector(embedding: str | list[float]) -> np.ndarray:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)


def failure(response: httpx.Response, spec: EncoderSpec, key: str) -> Exception:
    """What an answer other than 200 means.

    Args:
        response: the answer, read to its end.
        spec: the recipe of the request.
        key: what was sent as the key; never repeated in the result, though a server may repeat it; empty if none.

    Returns:
        A `PassingFailure`, a `Refusal`, or a `ValueError` that names the URL.
    """
    status = response.status_code
    said = f"{status} {_message(response)}"
    if key:
        said = said.replace(key, "***")
    said = said[:LONGEST_MESSAGE]
    if status in (TIMED_OUT, TOO_MANY) or status >= 500:
        return PassingFailure(said, retry_after_s(response.headers.get("retry-after")))
    if status in OF_TEXTS:
        return Refusal(said)
    held = "holds a key that it does not accept" if key else "is not set and must hold its key"
    variable = f"the environment variable {spec.api_key_env} (encoder.api_key_env) {held}"
    place = f"check encoder.model {spec.model!r} and encoder.base_url, which mostly ends in /v1"
    fixes = {401: variable, 403: variable, 404: place}
    fix = fixes.get(status, "see whether an OpenAI-compatible server is there")
    return ValueError(f"encoder.base_url: {response.request.url} answers {said}; {fix}")


def _message(response: httpx.Response) -> str:
    """The server's own words, wherever its family puts them: error.message, error, message or detail."""
    try:
        said = response.json()
        said = said.get("error") or said.get("message") or said.get("detail") or said
        said = said.get("message", said) if isinstance(said, dict) else said
    except (ValueError, AttributeError):
        said = response.text
    return " ".join(str(said).split()) or response.reason_phrase


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as seconds or as an HTTP date (RFC 9110, 10.2.3); None if neither."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
