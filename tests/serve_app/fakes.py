"""Encoders without a model, and a place to count that can be read."""

import asyncio
import json

import numpy as np

from serve_app.answers import Answer, EncoderUnavailable, Seen, Served, UnknownEncoder
from serve_app.schemas import Description, Refinement

DIM = 3
PASSES = 3


def description(encode=True):
    return Description(
        encoder="a fake encoder",
        dim=DIM,
        seq_len=8,
        max_tokens=7,
        languages=["en", "de"],
        strategies=["confidence", "candidates"],
        version="abc123",
        figures={"validation_token_accuracy": 0.5},
        encode=encode,
    )


class EchoBackend:
    """Encoder `fake` writes what it was asked; `starting` has not started.

    Attributes:
        gate: what has to be set before it answers.
        running: calls that are under way.
        cancelled: calls that were given up.
    """

    def __init__(self, encode=True):
        self.served = {
            "fake": Served("RUNNING", 1.0, description(encode), 1.0),
            "starting": Served("DEPLOYING", 1.0),
        }
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.cancelled = 0

    async def known(self):
        return self.served

    async def describe(self, name):
        if name not in self.served:
            raise UnknownEncoder(name, sorted(self.served))
        if self.served[name].description is None:
            raise EncoderUnavailable(f"encoder {name!r} is starting; try again in 5 s")
        return self.served[name].description

    async def _wait(self):
        self.running += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def invert(self, name, vectors, choices, refine):
        await self._wait()
        return [answer(vectors, choices, refine)]

    async def watch(self, name, vectors, choices, refine):
        for step in range(1, PASSES + 1):
            await self._wait()
            for row in range(len(vectors)):
                event = {"index": row, "step": step, "tokens": [{"text": "a", "confidence": 0.5}]}
                yield Seen(row, step, json.dumps(event).encode())
        if isinstance(refine, Refinement):
            for step in range(refine.steps + 1):
                event = {"index": 0, "step": step, "text": "a", "cosine": 0.5 + step / 10, "encoder_calls": step + 1}
                yield Seen(0, PASSES + 1 + step, json.dumps(event).encode(), "correction")
        yield answer(vectors, choices, refine)

    async def encode(self, name, texts):
        await self._wait()
        return np.array([[len(text), 1.0, 2.0] for text in texts], dtype=np.float32)


def answer(vectors, choices, refine):
    texts = [
        {
            "text": f"{vector.tolist()} {choices.strategy} {choices.steps} {choices.seed} "
            f"{choices.options.candidates} {refine}",
            "confidence": 1.0,
            "probability": None,
            "cosine": None,
            "steps": choices.steps,
            "tokens": [],
        }
        for vector in vectors
    ]
    return Answer([json.dumps(text).encode() for text in texts], "abc123", 0.001)


class Tally:
    """Counts in lists."""

    def __init__(self):
        self.answers, self.texts, self.queue, self.rejections, self.retries = [], [], [], [], []

    def answered(self, encoder, route, status, seconds):
        assert seconds >= 0
        self.answers.append((encoder, route, status))

    def inverted(self, encoder, vectors):
        self.texts.append((encoder, vectors))

    def queued(self, encoder, vectors):
        self.queue.append((encoder, vectors))

    def rejected(self, encoder, reason):
        self.rejections.append((encoder, reason))

    def retried(self, encoder):
        self.retries.append(encoder)
