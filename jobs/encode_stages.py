"""The two stages of the encode job, without Ray: texts are aligned and tokenised, and become vectors.

The first runs in tasks, and a job on one machine starts several processes for them: what is imported here is imported
in each, so torch and transformers are not (docs/LOG.md). Tokenizers are sent; only the driver reads their files.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from embinv.config import Config
from embinv.data.alignment import FastTokenizer, align
from embinv.data.schema import PairsRecipe, fixed_size_list, pairs_schema
from embinv.data.settings import DataSettings
from embinv.data.split import SPLITS, assign_splits
from embinv.encoders.base import Encoder, RejectingEncoder, TokenEncoder, open_encoder, open_tokenizer
from embinv.encoders.tokens import EncoderTokenizer, Tokens
from jobs.rejects import RejectedRow, reject_rows

ENCODER_IDS = "encoder_ids"
WARM_UP = ["Dr. Weber moved the appointment to May 4."] * 64


@dataclass(frozen=True)
class Job:
    """What every stage knows."""

    config: Config
    recipe: PairsRecipe
    out: Path
    started: Path  # where an encoder says that it is ready


@dataclass(frozen=True)
class AlignWindow:
    """Stage 1: texts (id, text, lang) as the decoder must write them and as the encoder reads them.

    Adds token_ids [L], split, and the encoder's token ids where it takes such.
    """

    data: DataSettings
    decoder: FastTokenizer
    encoder: EncoderTokenizer | None

    @classmethod
    def of(cls, job: Job) -> "AlignWindow":
        """Loads the tokenizers.

        Raises:
            ValueError: one cannot be had.
        """
        return cls(job.config.data, job.config.open_tokenizer().fast, open_tokenizer(job.recipe.encoder))

    def __call__(self, table: pa.Table) -> pa.Table:
        data = self.data
        aligned = align(table["text"].to_numpy(zero_copy_only=False), self.decoder, data.seq_len, data.min_tokens)
        rows = pa.array(aligned.rows)
        texts = pa.array(aligned.texts, pa.string())
        codes = assign_splits(texts, data.validation, data.test, data.correction)
        splits = pa.DictionaryArray.from_arrays(codes, list(SPLITS))
        columns = {
            "id": table["id"].take(rows),
            "text": texts,
            "lang": table["lang"].take(rows),
            "token_ids": fixed_size_list(aligned.token_ids, pa.int32()),
            "split": splits.cast(pa.string()),
        }
        if self.encoder is not None:
            columns[ENCODER_IDS] = self.encoder(aligned.texts).to_arrow()
        return pa.table(columns)


class EncodeWindow:
    """Stage 2: one encoder process; token ids or texts become vectors, in the schema of the pairs."""

    def __init__(self, job: Job, threads: int | None) -> None:
        self.job = job
        self.schema = pairs_schema(job.recipe)
        self.mistake: ValueError | None = None
        # Ray calls from another thread than it makes this in. The library of threads under torch keeps a team for each
        # of its callers, and where the teams outnumber the cores, it puts threads to sleep between any two steps.
        self.thread = ThreadPoolExecutor(1)
        try:
            self.encoder = self.thread.submit(self._open, threads).result()
        except ValueError as error:
            self.mistake = error  # raised here, Ray would tell of an actor that died and not of why
            return
        job.started.mkdir(parents=True, exist_ok=True)  # in a dry run, a folder of the driver's machine
        (job.started / f"{time.time():.3f}-{os.getpid()}").touch()

    def _open(self, threads: int | None) -> Encoder:
        spec, encoding = self.job.recipe.encoder, self.job.config.encoding
        if threads is not None and spec.kind == "sentence-transformers":
            import torch

            torch.set_num_threads(threads)
        encoder = open_encoder(spec, device=encoding.device, settings=encoding)
        if isinstance(encoder, TokenEncoder):
            encoder.encode(WARM_UP)  # weights come from the disk when they are first used
        return encoder

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.mistake is not None:
            raise self.mistake
        vectors, rejected = self.thread.submit(self._encode, table).result()
        whole = np.isfinite(vectors).all(axis=1)
        for row in np.flatnonzero(~whole & ~np.isin(np.arange(len(table)), list(rejected))).tolist():
            rejected[row] = "the encoder gave a vector with NaN or infinity"
        if rejected:
            self._set_aside(table, rejected)
            good = np.setdiff1d(np.arange(len(table)), list(rejected))
            table, vectors = table.take(pa.array(good)), vectors[good]
        columns = {name: table[name].combine_chunks() for name in ("id", "text", "lang", "token_ids")}
        columns["embedding"] = fixed_size_list(vectors.astype(np.float16), pa.float16())
        pairs = pa.Table.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
        return pairs.append_column(pa.field("split", pa.string(), nullable=False), table["split"])

    def _encode(self, table: pa.Table) -> tuple[np.ndarray, dict[int, str]]:
        """[N, D] float32, and why some rows have no vector (theirs are zero)."""
        if isinstance(self.encoder, TokenEncoder):
            return self.encoder.encode_tokens(Tokens.from_arrow(table[ENCODER_IDS])), {}
        texts = table["text"].to_numpy(zero_copy_only=False)
        if not isinstance(self.encoder, RejectingEncoder):
            return self.encoder.encode(texts), {}
        good, rows, rejections = self.encoder.encode_or_reject(texts)
        vectors = np.zeros((len(table), self.job.recipe.encoder.dim), dtype=np.float32)
        vectors[rows] = good
        return vectors, {rejection.row: rejection.reason for rejection in rejections}

    def _set_aside(self, table: pa.Table, rejected: dict[int, str]) -> None:
        chosen = table.select(["id", "text"]).take(pa.array(sorted(rejected))).to_pylist()
        rows = [RejectedRow(**row, reason=rejected[place]) for row, place in zip(chosen, sorted(rejected), strict=True)]
        reject_rows(self.job.out, rows)
