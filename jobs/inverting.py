"""Inverting on many workers: tasks cut into parts, which go through one Ray Data pipeline of loaded inverters.

All tasks go at once, so that a worker loads the checkpoint once and none waits while another finishes a task. What is
recovered of a vector does not depend on its part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from embinv.calibration import Calibrations
from embinv.inversion import Inversion
from embinv.inverter import TextInverter, load_inverter
from embinv.tasks import Done, Invert, Task, invert_task, told
from jobs.failures import told_plainly
from jobs.pool import ModelPool, model_pool

PART = 128  # vectors: an inverter's batch
SCHEMA = pa.schema(
    [
        ("part", pa.int64()),
        ("seconds", pa.float64()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int64())),
        ("token_confidence", pa.list_(pa.float64())),
        ("confidence", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Part:
    """Some vectors of a task."""

    name: str
    task: Task


def cut(tasks: Mapping[str, Task], size: int = PART) -> list[Part]:
    """Tasks as parts of at most `size` vectors, in order; one with draws by place stays whole."""
    parts = []
    for name, task in tasks.items():
        step = max(1, len(task.vectors)) if task.distinct else size
        for start in range(0, len(task.vectors), step):
            parts.append(Part(name, replace(task, vectors=task.vectors[start : start + step])))
    return parts


class InverterStage:
    """A loaded inverter in a process of a pipeline. It knows no calibration; that is for who asked."""

    def __init__(self, checkpoint: str, device: str, precision: str, threads: int | None) -> None:
        self.mistake: ValueError | None = None
        self.thread = ThreadPoolExecutor(1)  # see EncoderStage: threads keep to the one caller that they know
        try:
            self.inverter = self.thread.submit(self._load, checkpoint, device, precision, threads).result()
        except ValueError as error:
            self.mistake = error  # raised here, Ray would tell of an actor that died and not of why

    def _load(self, checkpoint: str, device: str, precision: str, threads: int | None) -> TextInverter:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        inverter = load_inverter(checkpoint, device=device, precision=precision)
        inverter.calibrations = Calibrations()
        return inverter

    def invert(self, task: Task) -> tuple[list[Inversion], float]:
        """See `invert_task`.

        Raises:
            ValueError: the checkpoint cannot be loaded.
        """
        if self.mistake is not None:
            raise self.mistake
        return self.thread.submit(invert_task, self.inverter, task).result()


class InvertParts(InverterStage):
    """One worker: numbers of parts become rows of SCHEMA."""

    def __init__(
        self, checkpoint: str, device: str, precision: str, threads: int | None, sent: list[ray.ObjectRef]
    ) -> None:
        super().__init__(checkpoint, device, precision, threads)
        self.sent = sent
        self.parts: Sequence[Part] | None = None

    def __call__(self, numbers: pa.Table) -> pa.Table:
        if self.parts is None:
            self.parts = ray.get(self.sent[0])
        found = [self._invert(number) for number in numbers["id"].to_pylist()]
        return pa.concat_tables(found) if found else SCHEMA.empty_table()

    def _invert(self, number: int) -> pa.Table:
        assert self.parts is not None
        task = self.parts[number].task
        inversions, seconds = self.invert(task)
        columns = {
            "part": [number] * len(inversions),
            "seconds": [seconds / len(inversions)] * len(inversions),
            "text": [each.text for each in inversions],
            "token_ids": [each.token_ids for each in inversions],
            "token_confidence": [each.token_confidence for each in inversions],
            "confidence": [each.confidence for each in inversions],
        }
        return pa.table(columns, schema=SCHEMA)


def invert_on_workers(
    checkpoint: Path,
    device: str,
    precision: str,
    workers: int | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
    accelerator: str | None = None,
) -> Invert:
    """Does tasks in the open Ray session.

    Args:
        checkpoint: a folder that all workers see under this name.
        device: cpu or cuda, of the workers.
        precision: of the inverters.
        workers: inverters; None takes what the cluster has room for.
        on_progress: gets a line after each part.
        accelerator: the kind of GPU; None takes any.
    """

    def invert(tasks: Mapping[str, Task]) -> dict[str, Done]:
        parts = cut(tasks)
        pool = model_pool(device, len(parts), "evaluation.workers", workers, accelerator=accelerator)
        total, done = sum(len(part.task.vectors) for part in parts), 0
        found: dict[int, pa.Table] = {}
        with told_plainly(checkpoint):
            for table in _through_workers(parts, pool, str(checkpoint), device, precision):
                for number in set(table["part"].to_pylist()):
                    found[number] = table.filter(pc.equal(table["part"], number))
                done += len(table)
                on_progress(f"{told(done, total)} ({pool.workers} worker{'s' * (pool.workers > 1)})")
        return {name: _collected([found[i] for i, part in enumerate(parts) if part.name == name]) for name in tasks}

    return invert


def _through_workers(
    parts: Sequence[Part], pool: ModelPool, checkpoint: str, device: str, precision: str
) -> Iterator[pa.Table]:
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # Ray's own wrapping loses what it wraps on the way to the driver
    with ray.data.DataContext.current(context):
        dataset = ray.data.range(len(parts), override_num_blocks=len(parts)).map_batches(
            InvertParts,
            fn_constructor_args=[checkpoint, device, precision, pool.threads, [ray.put(list(parts))]],
            compute=ray.data.ActorPoolStrategy(size=pool.workers),
            batch_size=None,
            batch_format="pyarrow",
            **pool.resources,
        )
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def _collected(tables: Sequence[pa.Table]) -> Done:
    """One task's parts, in order."""
    rows = [row for table in tables for row in table.to_pylist()]
    return Done(
        [Inversion(row["text"], row["token_ids"], row["token_confidence"], row["confidence"]) for row in rows],
        sum(row["seconds"] for row in rows),
    )
