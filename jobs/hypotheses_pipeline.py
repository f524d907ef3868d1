"""The Ray Data pipeline of the hypotheses job: read a window of pairs, invert it, encode what came of it, write it.

Inverters and encoders are actors of their own, so that neither waits for the other, and on GPUs they share those.
"""

from dataclasses import replace
from pathlib import Path

import ray
import ray.data

from embinv.encoders.base import open_tokenizer
from jobs.encode_pipeline import PARQUET as PAIRS_PARQUET
from jobs.exactly_once import checkpointed, write_splits
from jobs.hypotheses_run import Job
from jobs.hypotheses_stages import EncodeHypotheses, InvertWindow, read_schema
from jobs.pool import ModelPool, model_pool
from jobs.rejects import refuse_file
from jobs.shards import ShardSource, Window

WINDOW_ROWS = 512  # a few seconds of a CPU: what a kill takes back, of each inverter
READERS = 2
PARQUET = PAIRS_PARQUET | {
    "use_dictionary": [*PAIRS_PARQUET["use_dictionary"], "hypothesis_ids.list.element"],
    "use_byte_stream_split": [*PAIRS_PARQUET["use_byte_stream_split"], "hypothesis_embedding.list.element"],
}


def pools(job: Job, windows: int) -> tuple[ModelPool, ModelPool]:
    """The inverters and the encoders for so many windows, see `model_pool`.

    Where the encoder is a model there is one beside each inverter; else there is one in all. They share a GPU in
    unequal parts, so that no two inverters come to lie on one.
    """
    device = job.wish.device
    inverters = model_pool(device, windows, "--workers", job.wish.workers, accelerator=job.wish.accelerator)
    if job.recipe.encoder.kind != "sentence-transformers":
        return inverters, model_pool("cpu", windows, "--workers", None, most=0)
    if device == "cuda":
        resources = inverters.resources
        return (
            replace(inverters, resources=resources | {"num_gpus": 0.6}),
            replace(inverters, resources=resources | {"num_gpus": 0.4}),
        )
    return inverters, inverters


def run_pipeline(job: Job, windows: list[Window], done_ids: Path) -> None:
    """Makes the hypotheses of the rows of `windows` whose ids are not in `done_ids`."""
    inverters, encoders = pools(job, len(windows))
    cores = int(ray.cluster_resources().get("CPU", 1))
    # Ray asks for a number of rows where there is a GPU, and then puts short windows together.
    rows = WINDOW_ROWS if job.wish.device == "cuda" else None
    with ray.data.DataContext.current(checkpointed(done_ids)):
        dataset = (
            ray.data.read_datasource(
                ShardSource(windows, refuse_file, read_schema(job.recipe)),
                override_num_blocks=len(windows),
                num_cpus=0.5 if cores <= 2 else 1.0,  # see jobs/encode_pipeline.py
                concurrency=min(len(windows), READERS),
            )
            .map_batches(
                InvertWindow,
                fn_constructor_args=[job, open_tokenizer(job.recipe.encoder), inverters.threads],
                compute=ray.data.ActorPoolStrategy(size=inverters.workers),
                batch_size=rows,
                batch_format="pyarrow",
                **inverters.resources,
            )
            .map_batches(
                EncodeHypotheses,
                fn_constructor_args=[job, encoders.threads],
                compute=ray.data.ActorPoolStrategy(size=encoders.workers),
                batch_size=rows,
                batch_format="pyarrow",
                **encoders.resources,
            )
        )
        write_splits(dataset, job.wish.out, cores, PARQUET)
