"""The Ray Data pipeline of the encode job: read a window, align and tokenise it, encode it, write it.

Reading, aligning and tokenising run in CPU tasks; encoders are actors, one a GPU or a few a machine, which get token
ids and give vectors. A window goes through as one block: sorted by length in the encoder, committed in one write.
"""

import os
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from ray.data import SaveMode
from ray.data.checkpoint import CheckpointConfig

from embinv.config import Config
from embinv.data.alignment import TextTokenizer, align
from embinv.data.schema import PairsRecipe, fixed_size_list, pairs_schema
from embinv.data.split import SPLITS, assign_splits
from embinv.encoders.base import RejectingEncoder, TokenEncoder, open_encoder, open_tokenizer
from embinv.encoders.spec import EncoderSpec
from embinv.encoders.tokens import EncoderTokenizer, Tokens
from jobs.rejects import RejectedRow, reject_file, reject_rows
from jobs.shards import ShardSource, Window

ENCODER_IDS = "encoder_ids"
ENCODER_CPUS = 0.01  # see encoder_resources
WRITE_CPUS = 0.25  # a write is short and mostly waits for the disk
# Vectors are noise to a dictionary and to a compressor, but their exponents are not: these lie together in a split
# stream. Half the time to write, a tenth to read, a tenth less to store than the defaults (docs/LOG.md).
PARQUET = {
    "compression": "zstd",
    "use_dictionary": ["lang", "token_ids.list.element"],
    "use_byte_stream_split": ["embedding.list.element"],
    "write_statistics": ["id"],
}


@dataclass(frozen=True)
class Job:
    """What every stage knows."""

    config: Config
    recipe: PairsRecipe
    out: Path
    started: Path  # where an encoder says that it is ready


@lru_cache(maxsize=2)
def _tokenizers(source: str, spec: EncoderSpec) -> tuple[TextTokenizer, EncoderTokenizer | None]:
    """The decoder's tokenizer and the encoder's, loaded once in a process."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task has one core; the others belong to other tasks
    return TextTokenizer(source, trust_remote_code=spec.trust_remote_code), open_tokenizer(spec)


def align_and_tokenize(table: pa.Table, job: Job) -> pa.Table:
    """Stage 1: texts (id, text, lang) as the decoder must write them and as the encoder reads them.

    Adds token_ids [L], split, and the encoder's token ids where it takes such.
    """
    data = job.config.data
    decoder, encoder = _tokenizers(job.config.tokenizer, job.recipe.encoder)
    aligned = align(table["text"].to_numpy(zero_copy_only=False), decoder, data.seq_len, data.min_tokens)
    rows = pa.array(aligned.rows)
    texts = pa.array(aligned.texts, pa.string())
    splits = pa.DictionaryArray.from_arrays(assign_splits(texts, data.validation, data.test), list(SPLITS))
    columns = {
        "id": table["id"].take(rows),
        "text": texts,
        "lang": table["lang"].take(rows),
        "token_ids": fixed_size_list(aligned.token_ids, pa.int32()),
        "split": splits.cast(pa.string()),
    }
    if encoder is not None:
        columns[ENCODER_IDS] = encoder(aligned.texts).to_arrow()
    return pa.table(columns)


class EncodeWindow:
    """Stage 2: one encoder process; token ids or texts become vectors, in the schema of the pairs."""

    def __init__(self, job: Job, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.job = job
        self.schema = pairs_schema(job.recipe)
        encoding = job.config.encoding
        self.mistake: ValueError | None = None
        try:
            self.encoder = open_encoder(job.recipe.encoder, device=encoding.device, settings=encoding)
        except ValueError as error:
            self.mistake = error  # raised here, Ray would tell of an actor that died and not of why
            return
        job.started.mkdir(parents=True, exist_ok=True)  # in a dry run, a folder of the driver's machine
        (job.started / f"{time.time():.3f}-{os.getpid()}").touch()

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.mistake is not None:
            raise self.mistake
        vectors, rejected = self._encode(table)
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


def encoder_resources(config: Config) -> tuple[dict[str, float], int | None]:
    """What one encoder actor reserves, and how many CPU threads it runs (None: torch's own choice).

    Next to no CPU, whatever it uses: when a node is lost, its encoders start anew on what is left, and if they took
    all of it there, the tasks that feed them would wait for ever (tests/jobs/test_encode_faults.py). Not nothing: a
    head that is given no CPUs gets no encoder either. Of 2 CPUs, tasks and the checkpoint's filter need both.
    """
    encoding = config.encoding
    if encoding.device == "cuda":
        return {"num_gpus": 1, "num_cpus": 0}, encoding.threads
    cores = int(ray.cluster_resources().get("CPU", 1))
    return (
        {"num_cpus": ENCODER_CPUS if cores > 2 else 0},
        encoding.threads or max(1, cores // encoding.workers),
    )


def discard_uncommitted(out: Path, done_ids: Path) -> None:
    """Deletes the files of writes that were cut short, so that nobody counts their rows.

    Ray Data would do it too, when the pipeline starts: `X.pending.parquet` in `done_ids` says that files X* in `out`
    do not count.
    """
    for note in done_ids.glob("*.pending.parquet"):
        for file in out.rglob(f"{note.name.removesuffix('.pending.parquet')}*"):
            file.unlink()


def run_pipeline(job: Job, windows: list[Window], done_ids: Path) -> None:
    """Encodes the rows of `windows` whose ids are not in `done_ids`, and writes them into the output folder."""
    encoding = job.config.encoding
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # Ray's own wrapping loses what it wraps on the way to the driver
    context.memory_usage_poll_interval_s = None  # a thread in every worker, for a figure that nobody reads here
    # The traps of this pair of settings are in the docstring of tests/jobs/test_encode_resume.py.
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(done_ids), delete_checkpoint_on_success=False
    )
    resources, threads = encoder_resources(job.config)
    # Ray keeps a share of the CPUs for each stage: of two, a whole one for reading would leave the other to writing.
    cores = int(ray.cluster_resources().get("CPU", 1))
    share = 0.5 if cores <= 2 else 1.0
    # A tokenizer feeds an encoder that shares its cores many times over; each is a process that loads libraries first.
    slow = encoding.device == "cpu" and job.config.encoder.kind == "sentence-transformers"
    tokenizers = min(len(windows), encoding.tokenizers or (encoding.workers if slow else cores))
    with ray.data.DataContext.current(context):
        dataset = (
            ray.data.read_datasource(
                ShardSource(windows, partial(reject_file, job.out)),
                override_num_blocks=len(windows),
                num_cpus=share,
                concurrency=tokenizers,
            )
            .map_batches(
                align_and_tokenize,
                fn_args=[job],
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=share,
                compute=ray.data.TaskPoolStrategy(size=tokenizers),
            )
            .map_batches(
                EncodeWindow,
                fn_constructor_args=[job, threads],
                compute=ray.data.ActorPoolStrategy(size=encoding.workers),
                # Ray asks for a number of rows where there is a GPU, and then puts short windows together.
                batch_size=job.config.data.shard_rows if encoding.device == "cuda" else None,
                batch_format="pyarrow",
                **resources,
            )
        )
        dataset.write_parquet(
            str(job.out),
            partition_cols=["split"],
            mode=SaveMode.APPEND,
            ray_remote_args={"num_cpus": WRITE_CPUS},
            concurrency=max(1, cores // 4),
            **PARQUET,
        )
