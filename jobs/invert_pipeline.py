"""The windows of a dump through inverters on many workers, by Ray Data; each is written by who inverted it.

A part of a dump is read by one task, window by window, and a window goes to whichever inverter is free. It travels as
one row, so that Ray neither joins windows nor cuts them. A task or an actor that Ray starts anew does what it did
before: a window that is there already is not written again.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from embinv.data.dumps.base import Block, Dump
from embinv.data.dumps.windows import Window
from embinv.data.schema import fixed_size_list, matrix
from embinv.dump_inversion import Stretch, blocks_of, invert_window, stretches
from embinv.dump_inverter import DumpInverter, HowToInvert
from embinv.dump_texts import Texts
from jobs.pool import model_pool

TRAVELS = pa.schema([("window", pa.string()), ("rows", pa.binary())])
DONE = pa.schema([("rows", pa.int64())])
ONE_WINDOW = 1024  # bytes of a block at most: any window has more, so that each is a block


class DumpSource(Datasource):
    """Some windows of a dump, one read task for each part that has any."""

    def __init__(self, dump: Dump, wanted: list[Window], window_rows: int, dim: int) -> None:
        super().__init__()
        self.address, self.window_rows, self.row_bytes = dump.address, window_rows, 4 * dim
        self.stretches = stretches(dump, wanted)

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all vectors."""
        return sum(map(self._bytes, self.stretches))

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object | None = None
    ) -> list[ReadTask]:
        """One task for each part, whatever `parallelism` says."""
        return [
            ReadTask(
                partial(_read, self.address, each, self.window_rows),
                BlockMetadata(num_rows=None, size_bytes=self._bytes(each), input_files=None, exec_stats=None),
                schema=TRAVELS,
                per_task_row_limit=per_task_row_limit,
            )
            for each in self.stretches
        ]

    def _bytes(self, each: Stretch) -> int:
        return sum(window.rows for window in each.wanted.values()) * self.row_bytes


def _read(address: str, each: Stretch, window_rows: int) -> Iterable[pa.Table]:
    for window, block in blocks_of(address, each.part, each.number, each.wanted, window_rows):
        yield pa.table({"window": [json.dumps(asdict(window))], "rows": [packed(block)]}, schema=TRAVELS)


def packed(block: Block) -> bytes:
    """A block as an Arrow stream."""
    table = pa.table({"id": block.ids, "vector": fixed_size_list(block.vectors, pa.float32())})
    if block.metadata is not None and block.metadata.num_columns:
        table = table.append_column("metadata", block.metadata.to_struct_array())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def unpacked(rows: bytes) -> Block:
    """The block that `packed` was given."""
    table = pa.ipc.open_stream(rows).read_all()
    vectors = table["vector"]
    others = None
    if "metadata" in table.column_names:
        struct = table["metadata"].combine_chunks()
        others = pa.Table.from_struct_array(struct.combine_chunks() if isinstance(struct, pa.ChunkedArray) else struct)
    ids = table["id"].combine_chunks()
    return Block(ids, np.ascontiguousarray(matrix(vectors, vectors.type.list_size)), others)


class InvertWindows:
    """One worker: rows of TRAVELS become files, and rows of DONE."""

    def __init__(self, how: HowToInvert, out: str, threads: int | None) -> None:
        self.texts = Texts(Path(out))
        self.mistake: ValueError | None = None
        self.thread = ThreadPoolExecutor(1)  # see EncoderStage: threads keep to the one caller that they know
        try:
            self.inverter = self.thread.submit(_load, how, threads).result()
        except ValueError as error:
            self.mistake = error  # raised here, Ray would tell of an actor that died and not of why

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.mistake is not None:
            raise self.mistake
        rows = [self.thread.submit(self._write, row["window"], row["rows"]).result() for row in table.to_pylist()]
        return pa.table({"rows": rows}, schema=DONE)

    def _write(self, window: str, rows: bytes) -> int:
        own = Window(**json.loads(window))
        if not self.texts.is_done(own):  # by an actor that was lost after it wrote
            invert_window(self.texts, own, unpacked(rows), self.inverter)
        return own.rows


def _load(how: HowToInvert, threads: int | None) -> DumpInverter:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return DumpInverter(how)


def run_pipeline(
    dump: Dump,
    wanted: list[Window],
    window_rows: int,
    dim: int,
    how: HowToInvert,
    out: Path,
    workers: int | None,
    accelerator: str | None = None,
) -> None:
    """Inverts windows in the open Ray session, and writes each into `out`.

    Raises:
        ray.exceptions.RayError: see `jobs.failures.told_plainly`.
        ValueError: fewer GPUs than workers.
    """
    pool = model_pool(how.device, len(wanted), "--workers", workers, accelerator=accelerator)
    cores = int(ray.cluster_resources().get("CPU", 1))
    source = DumpSource(dump, wanted, window_rows, dim)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # Ray's own wrapping loses what it wraps on the way to the driver
    context.target_max_block_size = ONE_WINDOW
    with ray.data.DataContext.current(context):
        dataset = ray.data.read_datasource(
            source,
            override_num_blocks=len(source.stretches),
            num_cpus=0.5 if cores <= 2 else 1.0,  # see jobs/encode_pipeline.py
            concurrency=min(len(source.stretches), max(1, pool.workers)),
        ).map_batches(
            InvertWindows,
            fn_constructor_args=[how, str(out), pool.threads],
            compute=ray.data.ActorPoolStrategy(size=pool.workers),
            batch_size=None,
            batch_format="pyarrow",
            **pool.resources,
        )
        for _ in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            pass
