"""The Ray Data pipeline of the encode job: read a window, align and tokenise it, encode it, write it.

Reading, aligning and tokenising run in CPU tasks; encoders are actors, one a GPU or a few a machine, which get token
ids and give vectors. A window goes through as one block: sorted by length in the encoder, committed in one write.
"""

import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data

from embinv.config import Config
from jobs.encode_stages import AlignWindow, EncodeWindow, Job
from jobs.exactly_once import checkpointed, write_splits
from jobs.pool import NODE_MODELS, ModelPool, model_pool
from jobs.rejects import reject_file
from jobs.shards import ShardSource, Window

# Vectors are noise to a dictionary and to a compressor, but their exponents are not: these lie together in a split
# stream. Half the time to write, a tenth to read, a tenth less to store than the defaults (docs/LOG.md).
PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["lang", "token_ids.list.element"],
    "use_byte_stream_split": ["embedding.list.element"],
    "write_statistics": ["id"],
}


@lru_cache(maxsize=1)
def _received(stage: ray.ObjectRef) -> AlignWindow:
    """The stage as the driver sent it, unpacked once in a process."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a task has one core; the others belong to other tasks
    return ray.get(stage)


def align_window(table: pa.Table, sent: list[ray.ObjectRef]) -> pa.Table:
    """Stage 1 in a task; `sent` holds the one reference, for one that stood alone Ray would unpack for each task."""
    return _received(sent[0])(table)


def encoder_pool(config: Config, windows: int) -> ModelPool:
    """The encoder actors for so many windows, see `model_pool`; encoders that are no models are one."""
    encoding = config.encoding
    most = NODE_MODELS if config.encoder.kind == "sentence-transformers" else 0
    return model_pool(
        encoding.device, windows, "encoding.workers", encoding.workers, encoding.threads, most, encoding.accelerator
    )


def run_pipeline(job: Job, windows: list[Window], done_ids: Path) -> None:
    """Encodes the rows of `windows` whose ids are not in `done_ids`, and writes them into the output folder."""
    encoding = job.config.encoding
    pool = encoder_pool(job.config, len(windows))
    # Ray keeps a share of the CPUs for each stage: of two, a whole one for reading would leave the other to writing.
    cores = int(ray.cluster_resources().get("CPU", 1))
    share = 0.5 if cores <= 2 else 1.0
    # A tokenizer feeds an encoder that shares its cores many times over. Where nothing is as slow as that, there is one
    # task more than cores, for Ray notices only ten times a second that one has ended.
    slow = encoding.device == "cpu" and job.config.encoder.kind == "sentence-transformers"
    tokenizers = min(len(windows), encoding.tokenizers or (pool.workers if slow else cores + 1))
    where = {"label_selector": encoding.tokenizer_nodes} if encoding.tokenizer_nodes else {}
    with ray.data.DataContext.current(checkpointed(done_ids)):
        dataset = (
            ray.data.read_datasource(
                ShardSource(windows, partial(reject_file, job.out)),
                override_num_blocks=len(windows),
                num_cpus=share,
                concurrency=tokenizers,
                ray_remote_args=where,
            )
            .map_batches(
                align_window,
                fn_args=[[ray.put(AlignWindow.of(job))]],
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=share,
                compute=ray.data.TaskPoolStrategy(size=tokenizers),
                **where,
            )
            .map_batches(
                EncodeWindow,
                fn_constructor_args=[job, pool.threads],
                compute=ray.data.ActorPoolStrategy(size=pool.workers),
                # Ray asks for a number of rows where there is a GPU, and then puts short windows together.
                batch_size=job.config.data.shard_rows if encoding.device == "cuda" else None,
                batch_format="pyarrow",
                **pool.resources,
            )
        )
        write_splits(dataset, job.out, cores, PARQUET)
