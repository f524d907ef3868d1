"""What encoding a corpus will take, from its statistics and a trial of 200 rows on this hardware (`--dry-run`)."""

import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from embinv.data.schema import fixed_size_list, matrix
from jobs.encode_pipeline import PARQUET, align_window, encoder_pool
from jobs.encode_stages import AlignWindow, EncodeWindow, Job
from jobs.failures import told_plainly
from jobs.progress import duration
from jobs.shards import TEXT_SCHEMA, list_windows

TRIAL_ROWS = 200
TRIAL_SECONDS = 3.0  # the trial is repeated for so long, and its median counts


class Trial:
    """An encoder as the job would run it, on a few rows."""

    def __init__(self, job: Job, sent: list[ray.ObjectRef], threads: int | None) -> None:
        self.job, self.align, self.encode = job, partial(align_window, sent=sent), EncodeWindow(job, threads)

    def run(self, window: pa.Table) -> dict[str, float]:
        """Encodes the first TRIAL_ROWS rows of a window.

        Returns:
            seconds that they took; and of the whole window, whose other vectors need not be known for it, the share of
            rows that become pairs, and the bytes of a pair on disk.
        """
        texts = window.slice(0, TRIAL_ROWS)
        pairs = self.encode(self.align(texts))  # the first pass is slower than those that follow
        took: list[float] = []
        while sum(took) < TRIAL_SECONDS:
            began = time.monotonic()
            self.encode(self.align(texts))
            took.append(time.monotonic() - began)
        aligned = self.align(window)
        return {
            "seconds": median(took),
            "share": len(aligned) / len(window),
            "bytes_per_pair": self._stored(aligned, pairs["embedding"]) / max(1, len(aligned)),
        }

    def _stored(self, aligned: pa.Table, vectors: pa.ChunkedArray) -> int:
        """Bytes of aligned texts in a Parquet file, with numbers drawn from `vectors`, since a few compress less."""
        dim = self.job.recipe.encoder.dim
        numbers = matrix(vectors, dim).reshape(-1) if len(vectors) else np.zeros(1, dtype=np.float16)
        drawn = np.random.default_rng(0).choice(numbers, (len(aligned), dim))
        texts = aligned.select(["id", "text", "lang", "token_ids"])
        sink = pa.BufferOutputStream()
        pq.write_table(texts.append_column("embedding", fixed_size_list(drawn, pa.float16())), sink, **PARQUET)
        footer = pq.read_metadata(pa.BufferReader(sink.getvalue()))
        columns = range(footer.num_columns if footer.num_row_groups else 0)
        return sum(footer.row_group(0).column(i).total_compressed_size for i in columns)


def plan_encoding(job: Job, corpus: dict[str, Any], shards: list[Path]) -> dict[str, Any]:
    """Runs the trial in an open Ray session and scales it up; nothing is left in the output folder.

    Raises:
        ValueError: the shards hold nothing, or the encoder cannot be loaded.
    """
    config = job.config
    windows = list_windows(shards, config.data.shard_rows, lambda file, reason: None)
    texts = _sample(shards, max((window.rows for window in windows), default=0), config.data.seed)
    if len(texts) == 0:
        raise ValueError(f"{shards[0].parent}: holds no readable row")
    pool = encoder_pool(config, len(windows))
    sent = [ray.put(AlignWindow.of(job))]
    with told_plainly(job.out):
        began = time.monotonic()
        make = ray.remote(Trial).options(**pool.resources, scheduling_strategy="SPREAD")  # type: ignore[attr-defined]
        actors = [make.remote(job, sent, pool.threads) for _ in range(pool.workers)]
        ray.get([actor.__ray_ready__.remote() for actor in actors])
        start_up = time.monotonic() - began
        trials = ray.get([actor.run.remote(texts) for actor in actors])  # at once: they share what the machine has
        for actor in actors:
            ray.kill(actor)
    trial = trials[0]
    rows = corpus["rows"] * trial["share"]
    trial_rows = min(TRIAL_ROWS, len(texts))
    speed = sum(trial_rows / each["seconds"] for each in trials)
    return {
        "languages": corpus["languages"],
        "texts": corpus["rows"],
        "pairs": round(rows),
        "input_files": len(shards),
        "output_files": len(windows) * (4 if config.data.correction else 3),
        "output_bytes": round(rows * trial["bytes_per_pair"]),
        "trial_rows": trial_rows,
        "rows_per_second": round(speed, 1),
        "workers": pool.workers,
        "device": config.encoding.device,
        "start_up_seconds": round(start_up, 1),
        "seconds": round(corpus["rows"] / speed + start_up),
    }


def _sample(shards: list[Path], rows: int, seed: int) -> pa.Table:
    """Rows from a few shards, chosen and put in order by a seed, as many as a window has."""
    rng = np.random.default_rng(seed)
    chosen = [shards[i] for i in rng.permutation(len(shards))[:8]]
    parts = []
    for shard in chosen:
        try:
            table = pq.read_table(shard, columns=TEXT_SCHEMA.names, partitioning=None).cast(TEXT_SCHEMA)
        except (pa.ArrowException, OSError):
            continue  # the job itself sets it aside and says so
        parts.append(table.take(rng.permutation(len(table))[: -(-max(rows, TRIAL_ROWS) // len(chosen))]))
    found = pa.concat_tables(parts) if parts else TEXT_SCHEMA.empty_table()
    return found.take(rng.permutation(len(found)))


def plan_text(plan: dict[str, Any]) -> str:
    """The plan as lines to read."""
    languages = ", ".join(f"{lang} {count:,}" for lang, count in plan["languages"].items())
    return "\n".join(
        (
            f"texts      {plan['texts']:,} in {plan['input_files']:,} file(s): {languages}",
            f"pairs      about {plan['pairs']:,} in at most {plan['output_files']:,} files, "
            f"{plan['output_bytes'] / 1e6:,.1f} MB",
            f"speed      {plan['rows_per_second']:,} texts/s on {plan['workers']} {plan['device']} worker(s), from a "
            f"trial of {plan['trial_rows']} texts; an encoder is ready after {plan['start_up_seconds']:.0f} s",
            f"time       about {duration(plan['seconds'])} ({plan['seconds'] / 3600:.2f} hours) on this hardware",
            "nothing was written",
        )
    )
