"""A stage that makes vectors: an encoder in a process of a pipeline, called from one thread, without Ray.

What is imported here is imported in each process of a pipeline's first stage too, so torch and transformers are not.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from embinv.encoders.base import Encoder, RejectingEncoder, TokenEncoder, open_encoder
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec
from embinv.encoders.tokens import Tokens
from jobs.rejects import RejectedRow, reject_rows

ENCODER_IDS = "encoder_ids"
WARM_UP = ["Dr. Weber moved the appointment to May 4."] * 64


class EncoderStage:
    """Encodes the texts of tables, and sets aside those that have no vector.

    Args:
        spec: the recipe.
        encoding: how it is computed.
        threads: of torch; None leaves it its choice.
        out: the job's output, where rows without a vector are noted.
        started: where the encoder says that it is ready.
        column: of a table, that holds the texts; ENCODER_IDS holds what `open_tokenizer` makes of them, if it does.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        encoding: EncodingSettings,
        threads: int | None,
        out: Path,
        started: Path,
        column: str = "text",
    ) -> None:
        self.dim, self.out, self.column = spec.dim, out, column
        self.mistake: ValueError | None = None
        # Ray calls from another thread than it makes this in. The library of threads under torch keeps a team for each
        # of its callers, and where the teams outnumber the cores, it puts threads to sleep between any two steps.
        self.thread = ThreadPoolExecutor(1)
        try:
            self.encoder = self.thread.submit(_open, spec, encoding, threads).result()
        except ValueError as error:
            self.mistake = error  # raised here, Ray would tell of an actor that died and not of why
            return
        with suppress(FileNotFoundError):  # a dry run's is on the driver's machine; and the job may be done by now
            (started / f"{time.time():.3f}-{os.getpid()}").touch()

    def with_vectors(self, table: pa.Table) -> tuple[pa.Table, np.ndarray]:
        """The M rows of a table that have a vector, and their vectors [M, D] float32.

        Raises:
            ValueError: the encoder cannot be loaded, or does not answer.
        """
        if self.mistake is not None:
            raise self.mistake
        vectors, rejected = self.thread.submit(self._encode, table).result()
        whole = np.isfinite(vectors).all(axis=1)
        for row in np.flatnonzero(~whole & ~np.isin(np.arange(len(table)), list(rejected))).tolist():
            rejected[row] = "the encoder gave a vector with NaN or infinity"
        if rejected:
            set_aside(self.out, table, self.column, rejected)
            good = np.setdiff1d(np.arange(len(table)), list(rejected))
            table, vectors = table.take(pa.array(good)), vectors[good]
        return table, vectors

    def _encode(self, table: pa.Table) -> tuple[np.ndarray, dict[int, str]]:
        """[N, D] float32, and why some rows have no vector (theirs are zero)."""
        if isinstance(self.encoder, TokenEncoder):
            return self.encoder.encode_tokens(Tokens.from_arrow(table[ENCODER_IDS])), {}
        texts = table[self.column].to_numpy(zero_copy_only=False)
        if not isinstance(self.encoder, RejectingEncoder):
            return self.encoder.encode(texts), {}
        good, rows, rejections = self.encoder.encode_or_reject(texts)
        vectors = np.zeros((len(table), self.dim), dtype=np.float32)
        vectors[rows] = good
        return vectors, {rejection.row: rejection.reason for rejection in rejections}


def set_aside(out: Path, table: pa.Table, column: str, rejected: dict[int, str]) -> None:
    """Notes rows of a table, by their places, with the text of a column and the reason."""
    chosen = table.take(pa.array(sorted(rejected)))
    rows = zip(chosen["id"].to_pylist(), chosen[column].to_pylist(), sorted(rejected), strict=True)
    reject_rows(out, [RejectedRow(identity, text, rejected[place]) for identity, text, place in rows])


def _open(spec: EncoderSpec, encoding: EncodingSettings, threads: int | None) -> Encoder:
    if threads is not None and spec.kind == "sentence-transformers":
        import torch

        torch.set_num_threads(threads)
    encoder = open_encoder(spec, device=encoding.device, settings=encoding)
    if isinstance(encoder, TokenEncoder):
        encoder.encode(WARM_UP)  # weights come from the disk when they are first used
    return encoder
