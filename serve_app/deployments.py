"""The deployments of one encoder: replicas that hold its inverter, and replicas that hold the embedding model.

They answer by handle; HTTP is the gateway's. An encoder is a unit that scales, fails and goes to zero alone.

Shapes: N vectors, D embedding.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from ray import serve
from ray.serve.handle import DeploymentHandle

from embinv.checkpoint import CheckpointConfig
from embinv.decoding.options import Choices
from embinv.encoders.spec import EncoderSpec
from embinv.encoders.trust import open_told_encoder
from embinv.inversion import Inversion, choose_closest
from embinv.trained_corrector import load_corrector
from serve_app.answers import Answer, Seen
from serve_app.batching import Batcher
from serve_app.inverting import Decoded, ServedCheckpoint, Way, pass_event
from serve_app.metrics import ReplicaMetrics
from serve_app.refining import RefinedTexts, Refiner
from serve_app.schemas import Description, Refine, Refinement, ShownToken

logger = logging.getLogger(__name__)


@serve.deployment(max_constructor_retry_count=3)
class InverterDeployment:
    """One replica of an inverter.

    Args:
        checkpoint: absolute path of a checkpoint folder.
        encoder: the name that the checkpoint must have.
        dim: the D that its encoder must have; null takes the checkpoint's.
        device: "cpu" or "cuda".
        threads: CPU threads of a forward pass.
        max_batch_size: vectors decoded together; null: found by trial.
        embedder: the deployment of the embedding model, where one is served.
        corrector: absolute path of a corrector's checkpoint; null has the inverter rewrite parts of a text.

    Raises:
        ValueError: a folder is no checkpoint or contradicts `encoder` or `dim`, or there is no such device.
    """

    def __init__(
        self,
        checkpoint: str,
        encoder: str,
        dim: int | None,
        device: str,
        threads: int,
        max_batch_size: int | None,
        embedder: DeploymentHandle | None = None,
        corrector: str | None = None,
    ) -> None:
        # All of the model happens in one thread. OpenMP has workers for each thread that ever computed, and once there
        # are more of them than cores it lets them sleep between any two operations (docs/LOG.md).
        thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._model = thread.submit(ServedCheckpoint, checkpoint, device, threads, max_batch_size).result()
        require_agreement(self._model.inverter.config, encoder, dim)
        self._embedder = embedder
        self._metrics = ReplicaMetrics(encoder)
        self._batcher: Batcher[Way, list[ShownToken], Decoded] = Batcher(
            self._model.run, self._model.rows_at_once, self._metrics.batch, thread
        )
        thread.submit(self._model.warm_up).result()
        inverter, with_seed = self._model.inverter, None
        if corrector is not None:
            pairs, size = inverter.config.pairs, inverter.batch_size
            with_seed = thread.submit(load_corrector, corrector, pairs, device, size).result().with_seed
        self._refiner = Refiner(inverter, thread, self._encode, self._metrics.batch, with_seed)
        logger.info(
            "ready: %s from %s, version %s, on %s, up to %d vectors at a time",
            encoder,
            checkpoint,
            self._model.version,
            device,
            self._model.inverter.batch_size,
        )

    async def describe(self) -> Description:
        """What the checkpoint says of itself."""
        return self._model.describe(self._embedder is not None)

    async def invert(self, vectors: np.ndarray, choices: Choices, refine: Refine) -> Answer:
        """Recovers a text from each row of vectors [N, D]."""
        return await self._answer(vectors, choices, refine)

    async def watch(self, vectors: np.ndarray, choices: Choices, refine: Refine) -> AsyncIterator[Seen | Answer]:
        """What each pass and each correction made of each vector, and at the end the answer."""
        told: asyncio.Queue[Seen | None] = asyncio.Queue()
        passes, corrections = [0] * len(vectors), [0] * len(vectors)

        def tell_pass(row: int, tokens: list[ShownToken]) -> None:
            passes[row] += 1
            told.put_nowait(Seen(row, passes[row], pass_event(row, passes[row], tokens)))

        def tell_correction(row: int, best: Inversion) -> None:
            event = self._model.correction_event(row, corrections[row], best)
            corrections[row] += 1
            told.put_nowait(Seen(row, passes[row] + corrections[row], event, "correction"))

        work = asyncio.ensure_future(self._answer(vectors, choices, refine, tell_pass, tell_correction))
        work.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (event := await told.get()) is not None:
                yield event
            yield await work
        finally:
            work.cancel()

    async def _answer(
        self,
        vectors: np.ndarray,
        choices: Choices,
        refine: Refine,
        on_pass: Callable[[int, list[ShownToken]], None] | None = None,
        on_correction: Callable[[int, Inversion], None] | None = None,
    ) -> Answer:
        every = bool(refine) and choices.strategy == "candidates"
        done = await self._batcher.run(vectors, Way(choices, every), on_pass)
        model_s = max(each.model_s for each in done)
        found = [each.result.inversions for each in done]
        inversions = [some[0] for some in found]
        if isinstance(refine, Refinement):
            refined = await self._refined(vectors, found, refine, choices.seed, on_correction)
            inversions, model_s = refined.inversions, model_s + refined.model_s
        elif any(len(some) > 1 for some in found):
            candidates = [candidate for some in found for candidate in some]
            own = await self._encode([candidate.text or " " for candidate in candidates])
            inversions = choose_closest(vectors, candidates, own)
        answers = [self._model.answer(text, each.result.steps) for text, each in zip(inversions, done, strict=True)]
        return Answer(answers, self._model.version, model_s)

    async def _refined(
        self,
        vectors: np.ndarray,
        first: list[list[Inversion]],
        refinement: Refinement,
        seed: int,
        on_correction: Callable[[int, Inversion], None] | None,
    ) -> RefinedTexts:
        began = time.perf_counter()
        refined = await self._refiner.run(vectors, first, refinement, seed, on_correction)
        self._metrics.refined(sum(each.encoder_calls or 0 for each in refined.inversions), time.perf_counter() - began)
        return refined

    async def _encode(self, texts: list[str]) -> np.ndarray:
        """The vectors [K, D] of K texts, by the embedding model's own deployment."""
        assert self._embedder is not None, "the gateway lets nothing through that refines where there is none"
        response = self._embedder.encode.remote(texts)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise


@serve.deployment(max_constructor_retry_count=3)
class EncoderDeployment:
    """One replica of an embedding model, by the recipe that a checkpoint carries.

    Args:
        recipe: JSON of the `EncoderSpec`.
        device: "cpu" or "cuda".
        threads: CPU threads.

    Raises:
        ValueError: the weights cannot be had.
    """

    def __init__(self, recipe: str, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._encoder = open_told_encoder(EncoderSpec.model_validate_json(recipe), device)
        self._one_at_a_time = asyncio.Lock()  # tokenizers are not made for several threads
        self._encoder.encode(["a"])

    async def encode(self, texts: list[str]) -> np.ndarray:
        """The vectors [N, D] float32 of N texts."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._encoder.encode, texts)


def require_agreement(config: CheckpointConfig, encoder: str, dim: int | None) -> None:
    """Refuses a checkpoint of another encoder than the one that an application is named for.

    Raises:
        ValueError: the message names the field and both values.
    """
    if config.corrects:
        raise ValueError("checkpoint: holds a corrector; name it as `corrector`, and here the inverter's")
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
