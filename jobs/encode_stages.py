"""The two stages of the encode job, without Ray: texts are aligned and tokenised, and become vectors.

The first runs in tasks, and a job on one machine starts several processes for them: what is imported here is imported
in each, so torch and transformers are not (docs/LOG.md). Tokenizers are sent; only the driver reads their files.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from embinv.config import Config
from embinv.data.alignment import FastTokenizer, align
from embinv.data.schema import PairsRecipe, fixed_size_list, pairs_schema
from embinv.data.settings import DataSettings
from embinv.data.split import SPLITS, assign_splits
from embinv.encoders.base import open_tokenizer
from embinv.encoders.tokens import EncoderTokenizer
from jobs.encoder_stage import ENCODER_IDS, EncoderStage


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


class EncodeWindow(EncoderStage):
    """Stage 2: one encoder process; token ids or texts become vectors, in the schema of the pairs."""

    def __init__(self, job: Job, threads: int | None) -> None:
        super().__init__(job.recipe.encoder, job.config.encoding, threads, job.out, job.started)
        self.schema = pairs_schema(job.recipe)

    def __call__(self, table: pa.Table) -> pa.Table:
        table, vectors = self.with_vectors(table)
        columns = {name: table[name].combine_chunks() for name in ("id", "text", "lang", "token_ids")}
        columns["embedding"] = fixed_size_list(vectors.astype(np.float16), pa.float16())
        pairs = pa.Table.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
        return pairs.append_column(pa.field("split", pa.string(), nullable=False), table["split"])
