"""The two stages of the hypotheses job, as plain callables: vectors become texts, and these texts vectors again.

Shapes: N rows, L tokens, D embedding.
"""

import numpy as np
import pyarrow as pa

from embinv.data.corrections import corrections_schema, end_marked
from embinv.data.schema import PairsRecipe, fixed_size_list, matrix, pairs_schema
from embinv.encoders.tokens import EncoderTokenizer
from embinv.tasks import Task, Way
from jobs.encoder_stage import ENCODER_IDS, EncoderStage, set_aside
from jobs.hypotheses_run import SPLITS, Job
from jobs.inverting import InverterStage

ENCODED = "encoded"  # the hypothesis as the encoder gets it
SPLIT = pa.field("split", pa.string(), nullable=False)


def read_schema(recipe: PairsRecipe) -> pa.Schema:
    """What is read of the pairs: their columns, and the split that they lie in."""
    return pairs_schema(recipe).remove_metadata().append(SPLIT)


class InvertWindow(InverterStage):
    """Stage 1: pairs get a hypothesis, its token ids [L], and the encoder's token ids of it where it takes such.

    Args:
        job: what to make.
        encoder: the encoder's own tokenisation; None for a kind that takes texts.
        threads: of torch; None leaves it its choice.
    """

    def __init__(self, job: Job, encoder: EncoderTokenizer | None, threads: int | None) -> None:
        super().__init__(str(job.wish.checkpoint), job.wish.device, job.wish.precision, threads)
        self.job, self.encoder = job, encoder

    def __call__(self, table: pa.Table) -> pa.Table:
        recipe, wanted = self.job.recipe, self.job.hypotheses
        vectors = matrix(table["embedding"], recipe.encoder.dim).astype(np.float32)  # [N, D]
        whole = np.isfinite(vectors).all(axis=1)
        if not whole.all():
            why = "its own vector holds NaN or infinity"
            set_aside(self.job.wish.out, table, "text", dict.fromkeys(np.flatnonzero(~whole).tolist(), why))
            table, vectors = table.filter(pa.array(whole)), vectors[whole]
        inversions, _ = self.invert(Task(vectors, Way(wanted.strategy, wanted.steps), wanted.seed))
        texts = [each.text for each in inversions]
        ids = end_marked(self.inverter.tokenizer.encode(texts), recipe.seq_len, recipe.eos_id, recipe.pad_id)  # [N, L]
        encoded = [text or " " for text in texts]
        columns = {
            **{name: table[name] for name in table.column_names},
            "hypothesis": pa.array(texts, pa.string()),
            "hypothesis_ids": fixed_size_list(ids, pa.int32()),
            ENCODED: pa.array(encoded, pa.string()),
        }
        if self.encoder is not None:
            columns[ENCODER_IDS] = self.encoder(encoded).to_arrow()
        return pa.table(columns)


class EncodeHypotheses(EncoderStage):
    """Stage 2: hypotheses get their own vectors, in the schema of corrections, and the split that they are to be in."""

    def __init__(self, job: Job, threads: int | None) -> None:
        super().__init__(job.recipe.encoder, job.encoding, threads, job.wish.out, job.started, ENCODED)
        self.schema = corrections_schema(job.recipe, job.hypotheses)

    def __call__(self, table: pa.Table) -> pa.Table:
        table, vectors = self.with_vectors(table)
        own = {"hypothesis_embedding": fixed_size_list(vectors.astype(np.float16), pa.float16())}
        columns = [own[name] if name in own else table[name].combine_chunks() for name in self.schema.names]
        splits = [SPLITS[split] for split in table["split"].to_pylist()]
        return pa.Table.from_arrays(columns, schema=self.schema).append_column(SPLIT, pa.array(splits, pa.string()))
