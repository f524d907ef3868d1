"""Bytes on disk: texts, pairs, the state and the checkpoints of a run, and what is recovered.

Sizes follow from the schemas (embinv/data/schema.py, embinv/dump_inversion.py, jobs/train_state.py); what compression
leaves of them is assumed, from what was measured (docs/LOG.md) and from the demo's files.

Shapes: L text length, D embedding, P weights.
"""

from dataclasses import dataclass

from embinv.planning.assumptions import Assumptions
from embinv.planning.inverter_size import InverterSize
from embinv.planning.zero import FLOAT32, Weights, save_bytes
from embinv.training.settings import TrainingSettings

ID_BYTES = 8
VECTOR_BYTES = {"float16": 2, "float32": 4, "int8": 1}
OTHERS = 10  # bytes of a row beside text, token ids and vector: the id, which is a hash, and the language
SAVES = 3  # of a run's state at once: two are kept, and a third is written before the older one goes
CHECKPOINTS = 3  # the best and the last, and one being written in the place of either
FIGURES = 20  # bytes of a recovered text's id, confidence and probability


@dataclass(frozen=True)
class Item:
    """Something on disk.

    Attributes:
        name: what it is.
        size: bytes, as expected.
        note: what it is made of.
    """

    name: str
    size: float
    note: str


def text_bytes(tokens: float, assumptions: Assumptions) -> float:
    """Bytes of one text of so many tokens in a compressed file."""
    return tokens * assumptions["bytes_per_token"].expected * assumptions["text_ratio"].expected


def pair_bytes(seq_len: int, dim: int, tokens: float, assumptions: Assumptions, dtype: str = "float16") -> float:
    """Bytes of one pair on disk.

    Args:
        seq_len: L; the ids behind the end of a text are equal and compress to nothing.
        dim: D.
        tokens: of the text.
        assumptions: of compression.
        dtype: of the vectors; jobs/encode.py writes float16.
    """
    ids = min(tokens, seq_len) * assumptions["token_bytes"].expected
    vector = VECTOR_BYTES[dtype] * dim * assumptions["vector_ratio"].expected
    return OTHERS + text_bytes(tokens, assumptions) + ids + vector


def corpus_and_pairs(rows: int, seq_len: int, dim: int, tokens: float, assumptions: Assumptions) -> tuple[Item, ...]:
    """What encoding reads and writes."""
    pairs = rows * pair_bytes(seq_len, dim, tokens, assumptions)
    wider = rows * pair_bytes(seq_len, dim, tokens, assumptions, "float32")
    return (
        Item("texts", rows * (OTHERS + text_bytes(tokens, assumptions)), f"{rows:,} of {tokens:.0f} tokens, zstd"),
        Item("pairs", pairs, f"float16 [{dim}], int32 [{seq_len}] and text, zstd; with float32 {wider / 1e9:,.1f} GB"),
        Item("ids while encoding", 2 * rows * ID_BYTES, "what a resume leaves out; they go when all is done"),
    )


def training_state(size: InverterSize, settings: TrainingSettings) -> tuple[Item, ...]:
    """What training leaves and holds."""
    weights = Weights(size.parameters, size.matrices)
    each = save_bytes(weights, settings)
    return (
        Item(
            "training state",
            SAVES * each,
            f"{SAVES} saves of {each / 1e9:.2f} GB, ZeRO-{settings.zero_stage}, {settings.optimizer}",
        ),
        Item("checkpoints", CHECKPOINTS * FLOAT32 * size.parameters, "best and last, float32, and one being written"),
    )


def recovered(vectors: int, tokens: float, assumptions: Assumptions) -> Item:
    """What inversion writes, without other columns of the store."""
    return Item(
        "recovered texts", vectors * (FIGURES + text_bytes(tokens, assumptions)), f"{vectors:,}, with confidences"
    )
