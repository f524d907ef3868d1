"""What gives way first when there are ten, a hundred, a thousand times as many texts.

Each limit is a load (`embinv.planning.loads`) and a bound that it must stay below; it says where in the code the load
comes from and what would lower it. The GPUs grow with the square root of the rows, in whole nodes, and training makes
as many epochs as before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from embinv.planning.cluster import ARGUMENTS, S3_PUTS, TASKS_PER_SECOND
from embinv.planning.loads import (
    FOOTER_SECONDS,
    Setting,
    at_scale,
    blocks,
    choosing,
    corpus_blocks,
    cuts,
    exchange,
    files,
    filter_ids,
    gateway,
    ids_of_the_driver,
    in_flight,
    inspection,
    pairs_of_a_node,
    puts_per_second,
    tasks_per_second,
    texts_of_a_pass,
    vocabulary,
    written_per_second,
)

SCALES = (1, 10, 100, 1000)
SAFE = 0.8  # share of a memory that may be used
PATIENCE = 3600.0  # seconds that a step in one process may take


@dataclass(frozen=True)
class Limit:
    """A load and its bound, over scales.

    Attributes:
        name: of the load.
        unit: of both: bytes, seconds, a share, or plain numbers.
        loads: by scale.
        bounds: not to be exceeded; at each scale, since some grow with the nodes.
        breaks_at: the scale at which it is; None beyond ten times the largest.
        place: where in the code the load comes from.
        change: what would lower it.
    """

    name: str
    unit: str
    loads: tuple[float, ...]
    bounds: tuple[float, ...]
    breaks_at: float | None
    place: str
    change: str


def limits(base: Setting, scales: tuple[float, ...] = SCALES) -> list[Limit]:
    """All limits, those that break first in front.

    Args:
        base: at scale 1; its number of GPUs is in whole nodes.
        scales: to show.
    """
    found = [_limit(base, scales, *each) for each in _LOADS]
    return sorted(found, key=lambda limit: limit.breaks_at or math.inf)


Load = Callable[[Setting], float]


def _limit(
    base: Setting, scales: tuple[float, ...], name: str, unit: str, load: Load, bound: Load, place: str, change: str
) -> Limit:
    settings = [at_scale(base, scale) for scale in scales]
    return Limit(
        name,
        unit,
        tuple(load(each) for each in settings),
        tuple(bound(each) for each in settings),
        _breaks_at(lambda scale: (lambda own: load(own) / bound(own))(at_scale(base, scale)), 10 * max(scales)),
        place,
        change,
    )


def _breaks_at(strain: Callable[[float], float], most: float) -> float | None:
    """The smallest scale whose strain is above 1, to a twentieth, on a grid of steps of 5%; None up to `most`."""
    scale = 1.0
    while scale <= most:
        if strain(scale) > 1:
            return scale
        scale *= 1.05
    return None


def _driver(at: Setting) -> float:
    return SAFE * at.node.driver_bytes


def _constant(value: float) -> Load:
    return lambda at: value


_LOADS: tuple[tuple[str, str, Load, Load, str, str], ...] = (
    (
        "all-reduce over computing, per step",
        "share",
        exchange,
        _constant(0.5),
        "jobs/deepspeed_engine.py: the same batch on more nodes; bytes: embinv/planning/zero.py",
        "train on one node; or a larger training.batch_size, bfloat16, fewer tokens (trim_vocabulary)",
    ),
    (
        "GPUs over texts of a step",
        "share",
        texts_of_a_pass,
        _constant(1.0),
        "training.batch_size",
        "a larger training.batch_size, or fewer GPUs",
    ),
    (
        "training pairs in a node's memory",
        "bytes",
        pairs_of_a_node,
        lambda at: SAFE * at.node.memory_bytes,
        "embinv/data/pairs.py read_pairs: each worker holds the whole split, and twice while it sorts it",
        "read only token ids and vectors, mapped from disk, each worker its rows of a step",
    ),
    (
        "distinct tokens found by each worker",
        "seconds",
        vocabulary,
        _constant(PATIENCE),
        "jobs/train_worker.py _vocabulary, in int32 of all token ids",
        "count tokens while encoding and keep the counts in _stats.json; or model.trim_vocabulary false",
    ),
    (
        "Serve: one gateway's time",
        "share",
        gateway,
        _constant(1.0),
        "serve_app/gateway.py: one process by default",
        "`replicas` of the gateway in serve_app/config.yaml, a proxy on every node",
    ),
    (
        "corpus: keys and ids on the driver",
        "bytes",
        choosing,
        _driver,
        "jobs/selection.py choose",
        "find near-duplicates by band in tasks, one band at a time; a larger driver",
    ),
    (
        "corpus: references of the shuffle on the driver",
        "bytes",
        cuts,
        _driver,
        "jobs/shuffle.py: blocks x ranges objects",
        "a larger RANGE_ROWS, which then must fit into a task; or two rounds of cuts",
    ),
    (
        "corpus: arguments of a task of the shuffle",
        "count",
        blocks,
        _constant(ARGUMENTS),
        "jobs/shuffle.py _write takes a cut of each block",
        "join cuts of many blocks before they are written",
    ),
    (
        "corpus: blocks and signatures in the object stores",
        "bytes",
        corpus_blocks,
        lambda at: at.nodes * at.node.store_bytes,
        "jobs/corpus.py Reading: all blocks stay until they are written; then Ray spills to disk, which is slower",
        "nodes with more memory or fast disks; a corpus in several runs by data.sources",
    ),
    (
        "encode: Ray's tasks a second",
        "rate",
        tasks_per_second,
        _constant(TASKS_PER_SECOND),
        "jobs/encode_pipeline.py: four tasks a window",
        "data.shard_rows=16384: an eighth of the tasks",
    ),
    (
        "encode: files opened by one process at the end",
        "seconds",
        lambda at: FOOTER_SECONDS * files(at),
        _constant(PATIENCE),
        "jobs/exactly_once.py ids_by_split, jobs/progress.py RowCounter, jobs/shards.py list_windows",
        "data.shard_rows=16384: an eighth of the files; read footers in tasks",
    ),
    (
        "encode: ids of a resume in one task",
        "bytes",
        filter_ids,
        _driver,
        "ray.data.checkpoint: int64 ids in one block, sorted, then shared by the filters of a node",
        "encode in several folders, one after another",
    ),
    (
        "encode: ids on the driver at the end",
        "bytes",
        ids_of_the_driver,
        _driver,
        "jobs/exactly_once.py distinct",
        "check for repeated ids by ranges, in tasks",
    ),
    (
        "encode: windows in a node's object store",
        "bytes",
        in_flight,
        lambda at: at.node.store_bytes,
        "jobs/encode_pipeline.py: tokenisers and queues, whatever the rows",
        "fewer encoding.tokenizers, smaller data.shard_rows",
    ),
    (
        "encode: bytes written a second",
        "bytes",
        written_per_second,
        lambda at: at.load.expected("storage_mb") * 1e6,
        "shared storage, one for all nodes",
        "storage that grows with the nodes (S3, Lustre)",
    ),
    (
        "encode: S3 PUTs a second and prefix",
        "rate",
        puts_per_second,
        _constant(S3_PUTS),
        "three files and two notes a window",
        "data.shard_rows=16384; a prefix a run",
    ),
    (
        "invert: one process checks the dump",
        "seconds",
        inspection,
        _constant(PATIENCE),
        "embinv/data/dumps/inspection.py, before the workers start",
        "inspect parts of the dump in tasks",
    ),
)
