"""The deployment: one replica holds one checkpoint, answers HTTP, and inverts the vectors of many requests together.

HTTP and the model share a replica on purpose: an encoder is one unit that scales, fails and goes to zero alone, and
a vector crosses one process boundary instead of two. Whatever the number of vectors in a request, each is one item
of the batch, so that `max_batch_size` counts what the model sees and a large request lets small ones in between.

Shapes: N vectors, D embedding.
"""

import asyncio
import logging
from dataclasses import dataclass

import numpy as np
import torch
from fastapi import FastAPI
from ray import serve

from embinv.checkpoint import CheckpointConfig
from embinv.inverter import Inversion, load_inverter
from serve_app.ingress import build_ingress
from serve_app.schemas import RecoveredText, RecoveredToken

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoding:
    """How to decode; vectors that agree in it go through the model together."""

    strategy: str
    steps: int
    seed: int


@dataclass(frozen=True)
class Item:
    """One vector [D] of some request."""

    vector: np.ndarray
    decoding: Decoding


@serve.deployment(max_constructor_retry_count=3)
@serve.ingress()
class InverterDeployment:
    """One replica.

    Args:
        checkpoint: absolute path of a checkpoint folder.
        encoder: the name that the checkpoint must have.
        dim: the D that its encoder must have; null takes the checkpoint's.
        device: "cpu" or "cuda".
        threads: CPU threads of a forward pass.
        max_batch_size: vectors decoded together.
        batch_wait_s: how long the first vector of a batch waits for others.

    Raises:
        ValueError: the folder is no checkpoint, contradicts `encoder` or `dim`, or there is no such device.
    """

    def __init__(
        self,
        checkpoint: str,
        encoder: str,
        dim: int | None,
        device: str,
        threads: int,
        max_batch_size: int,
        batch_wait_s: float,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: cuda, but this node has no CUDA device; set device: cpu, or add a GPU node")
        torch.set_num_threads(threads)
        self._inverter = load_inverter(checkpoint, device, batch_size=max_batch_size)
        config = self._inverter.config
        require_agreement(config, encoder, dim)
        self.model, self.encoder, self.dim = config.name, config.pairs.encoder.model, config.pairs.encoder.dim
        self._invert_item = serve.batch(max_batch_size=max_batch_size, batch_wait_timeout_s=batch_wait_s)(
            self._invert_items
        )
        for rows in {1, max_batch_size}:  # the first pass of a shape is slow; no caller should wait for it
            self._inverter.invert(np.ones((rows, self.dim), dtype=np.float32), steps=1)
        logger.info("ready: %s from %s, %d dimensions, on %s", self.model, checkpoint, self.dim, device)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_ingress(self)

    async def invert(self, vectors: np.ndarray, strategy: str, steps: int, seed: int) -> list[RecoveredText]:
        """Recovers a text from each row of vectors [N, D]."""
        decoding = Decoding(strategy, steps, seed)
        inversions = await asyncio.gather(*(self._invert_item(Item(vector, decoding)) for vector in vectors))
        return [self._recovered(inversion) for inversion in inversions]

    async def _invert_items(self, items: list[Item]) -> list[Inversion]:
        # In a thread, since health checks and other requests need the event loop meanwhile.
        return await asyncio.to_thread(self._invert_groups, items)

    def _invert_groups(self, items: list[Item]) -> list[Inversion]:
        found: dict[int, Inversion] = {}
        for decoding, rows in group_rows(items).items():
            vectors = np.stack([items[row].vector for row in rows])  # [N, D]
            inversions = self._inverter.invert(
                vectors, strategy=decoding.strategy, steps=decoding.steps, seed=decoding.seed
            )
            found.update(zip(rows, inversions, strict=True))
        return [found[row] for row in range(len(items))]

    def _recovered(self, inversion: Inversion) -> RecoveredText:
        decode = self._inverter.tokenizer.tokenizer.decode
        tokens = [str(decode([token])) for token in inversion.token_ids]
        return RecoveredText(
            text=inversion.text,
            confidence=inversion.confidence,
            tokens=[
                RecoveredToken(id=id_, token=token, confidence=confidence)
                for id_, token, confidence in zip(inversion.token_ids, tokens, inversion.token_confidence, strict=True)
            ],
        )


def group_rows(items: list[Item]) -> dict[Decoding, list[int]]:
    """Positions of the items of each way of decoding, in order of arrival."""
    groups: dict[Decoding, list[int]] = {}
    for row, item in enumerate(items):
        groups.setdefault(item.decoding, []).append(row)
    return groups


def require_agreement(config: CheckpointConfig, encoder: str, dim: int | None) -> None:
    """Refuses a checkpoint of another encoder than the one that an application is named for.

    Raises:
        ValueError: the message names the field and both values.
    """
    if config.name != encoder:
        raise ValueError(
            f"encoder: {encoder!r}, but the checkpoint is one for {config.name!r} ({config.pairs.encoder.model}); "
            "correct `encoder` or `checkpoint`"
        )
    if dim is not None and config.pairs.encoder.dim != dim:
        raise ValueError(
            f"dim: {dim}, but the checkpoint takes vectors of {config.pairs.encoder.dim} dimensions; "
            "correct `dim` or `checkpoint`"
        )
