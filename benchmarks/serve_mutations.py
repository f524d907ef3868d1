"""Bodies that nearly are requests: valid ones with one thing or several things wrong.

A seed decides all of it. What a body is mutated from is valid, so that the mutation, not the parser's first look,
decides how far into the server it gets.
"""

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.serve_checkpoints import DIM, random_vectors

JSON = "application/json"
CONTENT_TYPES = (
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/xml",
    "application/octet-stream",
    "application/json; charset=utf-16",
    "application/json; charset=none",
    "text/html; charset=\xff",
    "/",
    "a" * 3000,
)
ENCODINGS = ("gzip", "br", "deflate", "identity", "x")
KEYS = ("embedding", "embeddings", "strategy", "steps", "candidates", "seed", "refine", "text", "texts", "", "\x00")
WRONG_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**30,
    -(2**63) - 1,
    1e308,
    5e-324,
    "",
    "8",
    "\x00",
    "\ud800",
    "نص",
    "a" * 10_000,
    [],
    [[]],
    [None],
    [1, "2"],
    {},
    {"embedding": [0.5]},
    {"steps": 0, "beam": 1},
    {"steps": 21, "beam": "4"},
)
RAW_NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0" * 50, "1" * 5000, "9" * 400 + ".5", "0x10", "1_0")
BAD_BASE64 = ("=", "====", "AAA", "A" * 4095, "-_-_", "%%%%", "AAAA\nAAAA", "é" * 8, "AAAA====")


@dataclass(frozen=True)
class Mutated:
    """What is sent.

    Attributes:
        kind: of the mutation.
        route: invert, stream or encode.
        body: the bytes.
        headers: of the request.
    """

    kind: str
    route: str
    body: bytes
    headers: dict[str, str]


def mutated_bodies(count: int, seed: int = 0) -> list[Mutated]:
    """As many requests, each kind of mutation equally often."""
    rng = random.Random(seed)
    vectors = random_vectors(8, seed).tolist()
    kinds = list(MUTATIONS)
    found = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        route = rng.choice(("invert", "invert", "stream", "encode"))
        body = valid_body(rng, route, vectors)
        content, headers = MUTATIONS[kind](rng, body)
        found.append(Mutated(kind, route, content, {"content-type": JSON} | headers))
    return found


def valid_body(rng: random.Random, route: str, vectors: list[list[float]]) -> dict[str, Any]:
    """A body that a server answers with 200; of few passes, since most are only read."""
    if route == "encode":
        text = rng.choice(("a text", "un texte", "نص قصير", "短い文章"))
        return rng.choice(({"text": text}, {"texts": [text, text]}, {"text": text, "encoding_format": "base64"}))
    row = rng.choice(vectors)
    body: dict[str, Any] = {"embedding": row}
    form = rng.randrange(3)
    if form == 1:
        body = {"embedding": packed(row)}
    elif form == 2:
        body = {"embeddings": [row, packed(rng.choice(vectors))][: rng.randint(1, 2)]}
    options = {"steps": rng.randint(1, 4), "seed": rng.randint(0, 9), "strategy": rng.choice(("confidence", "euler"))}
    return body | {name: value for name, value in options.items() if rng.random() < 0.7}


def packed(row: list[float]) -> str:
    """Base64 of little-endian float32."""
    return base64.b64encode(np.asarray(row, dtype="<f4").tobytes()).decode()


Made = tuple[bytes, dict[str, str]]


def _json(body: Any) -> bytes:
    # A lone surrogate has no UTF-8 form, and so is written as JSON's escape.
    return json.dumps(body).encode("ascii")


def _flipped_bytes(rng: random.Random, body: dict[str, Any]) -> Made:
    content = bytearray(_json(body))
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content), {}


def _flipped_outside_the_vector(rng: random.Random, body: dict[str, Any]) -> Made:
    content = bytearray(_json(body))
    places = [place for place, byte in enumerate(content) if byte in b'{}[]":,aeioust']
    for _ in range(rng.randint(1, 3)):
        content[rng.choice(places)] = rng.choice(b'{}[]":, \\\x00\x7f\xff09-.e')
    return bytes(content), {}


def _cut(rng: random.Random, body: dict[str, Any]) -> Made:
    content = _json(body)
    return content[: rng.randrange(len(content))], {}


def _put_in(rng: random.Random, body: dict[str, Any]) -> Made:
    content, place = _json(body), rng.randrange(64)
    return content[:place] + rng.randbytes(rng.randint(1, 32)) + content[place:], {}


def _doubled_keys(rng: random.Random, body: dict[str, Any]) -> Made:
    key = rng.choice(list(body))
    value = rng.choice((json.dumps(body[key]), json.dumps(rng.choice(WRONG_VALUES)), "[]"))
    return _json(body)[:-1] + f', "{key}": {value}}}'.encode("ascii"), {}


def _deep(rng: random.Random, body: dict[str, Any]) -> Made:
    depth = rng.choice((10, 200, 5_000, 100_000))
    opening, closing = rng.choice((("[", "]"), ('{"embedding":', "}")))
    nested = opening * depth + rng.choice(("", "0.5", "null")) + closing * rng.choice((depth, depth - 1, 0))
    key = rng.choice((*KEYS[:4], None))
    return (nested if key is None else f'{{"{key}": {nested}}}').encode("ascii"), {}


def _huge_numbers(rng: random.Random, body: dict[str, Any]) -> Made:
    number = rng.choice(RAW_NUMBERS)
    key = rng.choice(("steps", "seed", "candidates", "embedding", "embeddings"))
    values = ", ".join([number, *["0.5"] * (DIM - 1)])
    value = {"embedding": f"[{values}]", "embeddings": f"[[{values}]]"}.get(key, number)
    rest = json.dumps({name: each for name, each in body.items() if name != key})
    comma = ", " if rest != "{}" else ""
    return f'{rest[:-1]}{comma}"{key}": {value}}}'.encode("ascii"), {}


def _wrong_types(rng: random.Random, body: dict[str, Any]) -> Made:
    changed = dict(body)
    for _ in range(rng.randint(1, 3)):
        changed[rng.choice((*body, *KEYS))] = rng.choice(WRONG_VALUES)
    return _json(rng.choice((changed, changed, changed, [changed], rng.choice(WRONG_VALUES)))), {}


def _wrong_elements(rng: random.Random, body: dict[str, Any]) -> Made:
    row: list[Any] = [0.5] * rng.choice((DIM, DIM, DIM - 1, DIM + 1, 0, 1, 4096))
    for _ in range(rng.randint(0, 3)):
        if row:
            row[rng.randrange(len(row))] = rng.choice(WRONG_VALUES)
    return _json(rng.choice(({"embedding": row}, {"embeddings": [row, [0.5] * DIM]}, {"embeddings": [row] * 300}))), {}


def _bad_base64(rng: random.Random, body: dict[str, Any]) -> Made:
    good = packed([0.5] * DIM)
    special = base64.b64encode(b"\x00\x00\xc0\x7f" * DIM).decode()  # NaN
    value = rng.choice((*BAD_BASE64, good[:-3], good[:-4], good + "AAAA", special, " " + good, good * 50))
    return _json(rng.choice(({"embedding": value}, {"embeddings": [good, value]}, {"embeddings": value}))), {}


def _wrong_content_type(rng: random.Random, body: dict[str, Any]) -> Made:
    return _json(body), {"content-type": rng.choice(CONTENT_TYPES)}


def _wrong_encoding(rng: random.Random, body: dict[str, Any]) -> Made:
    return _json(body), {"content-encoding": rng.choice(ENCODINGS)}


def _invalid_utf8(rng: random.Random, body: dict[str, Any]) -> Made:
    wrong = rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc0\x80", b"\xfe\xff"))
    content = _json(body | {rng.choice(("strategy", "text", "x")): "@"})
    return rng.choice((content.replace(b"@", wrong), wrong + content, content + wrong)), {}


def _other_charset(rng: random.Random, body: dict[str, Any]) -> Made:
    return json.dumps(body).encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le"))), {}


def _noise(rng: random.Random, body: dict[str, Any]) -> Made:
    return rng.randbytes(rng.choice((0, 1, 16, 1000, 100_000))), {}


MUTATIONS: dict[str, Callable[[random.Random, dict[str, Any]], Made]] = {
    "flipped bytes": _flipped_bytes,
    "flipped outside the vector": _flipped_outside_the_vector,
    "cut": _cut,
    "bytes put in": _put_in,
    "doubled keys": _doubled_keys,
    "deep": _deep,
    "huge numbers": _huge_numbers,
    "wrong types": _wrong_types,
    "wrong elements": _wrong_elements,
    "bad base64": _bad_base64,
    "wrong content type": _wrong_content_type,
    "wrong encoding": _wrong_encoding,
    "invalid UTF-8": _invalid_utf8,
    "other charset": _other_charset,
    "noise": _noise,
}
