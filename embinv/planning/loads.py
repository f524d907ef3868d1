"""What the jobs load a cluster with, by what their code does: bytes, seconds and rates as functions of the rows.

Arithmetic on sizes, no simulation of Ray. What each load must stay below is `embinv.planning.limits`.

Shapes: N rows, L text length, D embedding, b bands of a MinHash signature, P places of it.
"""

import math
from dataclasses import dataclass, replace

from embinv.planning.accelerators import Accelerator
from embinv.planning.cluster import GATEWAY_SECONDS, P4D, REF_BYTES, REPLICA_RATE, Node
from embinv.planning.encoder_size import EncoderSize
from embinv.planning.encoding import encoder_tokens, plan_encoding
from embinv.planning.inversion import plan_inversion
from embinv.planning.inverter_size import InverterSize
from embinv.planning.stage_plan import Part, StagePlan
from embinv.planning.storage import pair_bytes
from embinv.planning.training import plan_training
from embinv.planning.workload import Workload

SPLITS = 3  # files of a window, one a split
NOTES = 2  # of Ray Data's checkpoint for a window, pending and committed
TASKS = 4  # of a window: read, align, encode, write
PIECE_ROWS = 50_000  # good rows of a file of C4, about, and so of a block of the corpus job
RANGE_ROWS = 131_072  # rows that one task of the shuffle puts together (jobs/shuffle.py)
BANDS, PLACES = 18, 128  # of near-duplicates at 0.8 (embinv/data/near_duplicates.py, jobs/selection.py)
LANG_BYTES = 12  # of a language code in a NumPy array of three letters
COPIES = 2  # of what is read, while it is sorted or cut to its columns
STRING = 57  # bytes of a Python string and its place in a list, beside its characters
FOOTER_SECONDS = 0.005  # to open a file on shared storage and read its footer
UNIQUE_SECONDS = 1e-7  # of an int32 to find the distinct ones of many, on one core
AHEAD = 4  # windows that wait before and behind each encoder
ROWS_OF_A_REPLICA = 2_000_000  # rows that come with as many requests as one replica answers


@dataclass(frozen=True)
class Setting:
    """All that a load is computed from at one scale."""

    load: Workload
    encoder: EncoderSize
    inverter: InverterSize
    gpu: Accelerator
    node: Node

    @property
    def rows(self) -> int:
        """N."""
        return self.load.rows

    @property
    def nodes(self) -> int:
        """With GPUs."""
        return -(-self.load.gpus // self.node.gpus)

    @property
    def windows(self) -> int:
        """Blocks that go through encoding together."""
        return -(-self.rows // self.load.config.data.shard_rows)

    @property
    def text_bytes(self) -> float:
        """Of one text in memory."""
        return self.load.tokens * self.load.expected("bytes_per_token")

    @property
    def encoding(self) -> StagePlan:
        """Planned at this scale."""
        return plan_encoding(self.load, self.encoder, self.gpu)

    @property
    def encoded_per_second(self) -> float:
        """Rows, by all GPUs together, once they run."""
        return self.rows / part_of(self.encoding, "encode").expected


def part_of(plan: StagePlan, name: str) -> Part:
    """The part of a plan by its name, alongside ones included."""
    return next(part for part in (*plan.parts, *plan.alongside) if part.name == name)


def at_scale(base: Setting, scale: float) -> Setting:
    """The same with `scale` times the rows and vectors, as many epochs, and GPUs by the square root.

    Steps alone say how long it trains, at scale 1 too: in the same minutes it would not come to as many epochs.
    """
    nodes = max(1, round(base.nodes * math.sqrt(scale)))
    load = base.load
    steps = max(1, round(load.training_steps * scale))
    rows, vectors = round(load.rows * scale), round(load.vectors * scale)
    gpus = nodes * base.node.gpus
    grown = replace(load, rows=rows, vectors=vectors, gpus=gpus, steps=steps, epochs=None, minutes=None)
    return replace(base, load=grown)


def setting(
    load: Workload, encoder: EncoderSize, inverter: InverterSize, gpu: Accelerator, node: Node = P4D
) -> Setting:
    """What limits are asked of; GPUs are rounded up to whole nodes."""
    gpus = -(-load.gpus // node.gpus) * node.gpus
    return Setting(replace(load, gpus=gpus), encoder, inverter, gpu, node)


def pairs_of_a_worker(at: Setting) -> float:
    """Bytes of the training split in a worker: ids, token ids, vectors, texts and languages as Python strings."""
    data, dim = at.load.config.data, at.load.config.encoder.dim
    return at.load.training_rows * (8 + 4 * data.seq_len + 2 * dim + 2 * STRING + at.text_bytes)


def pairs_of_a_node(at: Setting) -> float:
    """Bytes in the memory of a node while all of its workers read."""
    return COPIES * at.node.gpus * pairs_of_a_worker(at)


def window_bytes(at: Setting) -> float:
    """Of a window in the object store, between alignment and writing."""
    data, dim = at.load.config.data, at.load.config.encoder.dim
    row = 8 + at.text_bytes + 4 * data.seq_len + 4 * encoder_tokens(at.load) + 2 * dim
    return min(at.rows, data.shard_rows) * row


def in_flight(at: Setting) -> float:
    """Bytes in the object store of a node: a window in each tokeniser, and those around each encoder."""
    tokenizers = at.load.expected("cores_per_gpu") * at.node.gpus
    return window_bytes(at) * (tokenizers + AHEAD * at.node.gpus)


def tasks_per_second(at: Setting) -> float:
    """Of Ray, by all encoders together."""
    return TASKS * at.encoded_per_second / at.load.config.data.shard_rows


def files(at: Setting) -> float:
    """Of pairs."""
    return SPLITS * at.windows


def puts_per_second(at: Setting) -> float:
    """Files and notes that are written."""
    return (SPLITS + NOTES) * at.encoded_per_second / at.load.config.data.shard_rows


def written_per_second(at: Setting) -> float:
    """Bytes of pairs."""
    load = at.load
    return at.encoded_per_second * pair_bytes(
        load.config.data.seq_len, load.config.encoder.dim, load.tokens, load.assumptions
    )


def filter_ids(at: Setting) -> float:
    """Of a resume, in the one task that sorts them: as Arrow, as NumPy, and sorted."""
    return 3 * 8 * at.rows


def ids_of_the_driver(at: Setting) -> float:
    """By split, together, sorted, and distinct."""
    return 4 * 8 * at.rows


def choosing(at: Setting) -> float:
    """Ids, languages, order, and the keys of the bands in two copies and sorted one band at a time."""
    keys = BANDS * 8 if at.load.config.data.near_duplicates else 0
    return at.rows * (3 * 8 + 2 * LANG_BYTES + COPIES * keys + 3 * 8)


def corpus_blocks(at: Setting) -> float:
    """Bytes of what was read, with signatures, until it is written."""
    signature = 4 * PLACES if at.load.config.data.near_duplicates else 0
    return at.rows * (8 + 4 + at.text_bytes + signature)


def blocks(at: Setting) -> float:
    """Of the corpus job."""
    return -(-at.rows // PIECE_ROWS)


def cuts(at: Setting) -> float:
    """Bytes of references to what each range gets of each block."""
    return REF_BYTES * blocks(at) * -(-at.rows // RANGE_ROWS)


def vocabulary(at: Setting) -> float:
    """Seconds to find the tokens that occur."""
    return UNIQUE_SECONDS * at.load.training_rows * at.load.config.data.seq_len


def exchange(at: Setting) -> float:
    """Seconds that GPUs wait for each other over those that they compute."""
    plan = plan_training(at.load, at.inverter, at.gpu)
    return part_of(plan, "exchange").expected / part_of(plan, "passes").expected


def texts_of_a_pass(at: Setting) -> float:
    """GPUs over texts of a step."""
    return at.load.gpus * at.load.config.training.gradient_accumulation / at.load.batch


def inspection(at: Setting) -> float:
    """Seconds of one process with a dump."""
    return part_of(plan_inversion(at.load, at.inverter, at.gpu), "read and check").expected


def gateway(at: Setting) -> float:
    """Of one process's time, if requests grow as rows do and one replica is busy at scale 1."""
    return at.rows / ROWS_OF_A_REPLICA * REPLICA_RATE * GATEWAY_SECONDS
