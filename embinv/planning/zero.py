"""Bytes of training under ZeRO: what a worker holds, what it sends in a step, and what a save writes.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", sections 3.1 and 5 for
memory (2 + 2 + K bytes a weight with K = 12 in mixed precision, divided by stage) and section 7 for traffic. Read
against deepspeed 0.19.8 for what the paper leaves open: with float32 weights stages 1 and 2 keep a second copy of a
worker's share, and stage 3 does not. Beside it stands the moving average, whole on every worker at every stage.

Shapes: P weights, W workers.
"""

from dataclasses import dataclass, fields

from embinv.training.settings import TrainingSettings

FLOAT32, BFLOAT16 = 4, 2  # bytes


@dataclass(frozen=True)
class StateBytes:
    """Bytes on one worker's device.

    Attributes:
        weights: that the passes read.
        gradients: of them.
        optimizer: its moments, and a float32 copy of the weights where they are kept in another place or precision.
        average: the moving average of the weights.
    """

    weights: float
    gradients: float
    optimizer: float
    average: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True)
class Weights:
    """How many weights there are.

    Attributes:
        total: P.
        matrices: those of them that Muon moves, with one moment; the others have AdamW's two.
    """

    total: int
    matrices: int = 0

    @property
    def moments(self) -> int:
        """Bytes of the optimizer's moments, float32."""
        return FLOAT32 * (2 * self.total - self.matrices)


def state_bytes(weights: Weights, settings: TrainingSettings, workers: int) -> StateBytes:
    """What one of W workers holds between two steps, on its device; what is offloaded is not counted.

    Args:
        weights: of the model.
        settings: stage, precision and offloading, `precision` resolved.
        workers: W.
    """
    stage, low = settings.zero_stage, settings.precision == "bfloat16"
    of_weight = BFLOAT16 if low else FLOAT32
    shared = 1 / workers
    master = FLOAT32 * weights.total if low or stage in (1, 2) else 0
    optimizer = (weights.moments + master) * (shared if stage >= 1 else 1.0)
    gradients = of_weight * weights.total * (shared if stage >= 2 else 1.0)
    kept = of_weight * weights.total * (shared if stage == 3 else 1.0)
    return StateBytes(
        weights=0.0 if settings.offload_parameters == "cpu" else kept,
        gradients=gradients,
        optimizer=0.0 if settings.offload_optimizer == "cpu" else optimizer,
        average=FLOAT32 * weights.total,
    )


def sent_bytes(weights: Weights, settings: TrainingSettings, workers: int) -> float:
    """What one of W workers sends in an optimizer step, by ring algorithms.

    An all-reduce of n bytes has each worker send 2 n (W - 1) / W, and to gather n bytes is half of that. Stage 0
    reduces all gradients; stages 1 and 2 do the same (deepspeed's `use_multi_rank_bucket_allreduce`; the paper's
    reduce-scatter would be half) and gather the new weights; stage 3 scatters what it reduces, and gathers weights for
    the forward and for the backward pass: 3 P in all, as in section 7. Of an accumulation's passes, stages 2 and 3
    reduce each, since their workers keep only their share. Muon's workers send each other what they orthogonalised, in
    bfloat16.
    """
    if workers == 1:
        return 0.0
    ring = (workers - 1) / workers
    stage, passes = settings.zero_stage, settings.gradient_accumulation
    size = (BFLOAT16 if settings.precision == "bfloat16" else FLOAT32) * weights.total
    reduced = {0: 2.0, 1: 2.0, 2: 2.0 * passes, 3: 1.0 * passes}[stage]
    gathered = {0: 0.0, 1: 1.0, 2: 1.0, 3: 2.0 * passes}[stage]
    muon = BFLOAT16 * weights.matrices if stage == 0 else 0
    return ring * ((reduced + gathered) * size + muon)


def save_bytes(weights: Weights, settings: TrainingSettings) -> float:
    """What one save of a run writes, over all workers: weights, optimizer and moving average (jobs/train_state.py).

    It does not depend on the number of workers: each writes its share. At stage 3 the weights are in the optimizer's.
    """
    low = settings.precision == "bfloat16"
    kept = 0 if settings.zero_stage == 3 else (BFLOAT16 if low else FLOAT32) * weights.total
    master = FLOAT32 * weights.total if low or settings.zero_stage >= 1 else 0
    return kept + master + weights.moments + FLOAT32 * weights.total


def activation_bytes(positions: int, hidden: int, layers: int, texts: int, checkpointed: bool, low: bool) -> float:
    """What the passes of `texts` texts keep for the backward pass.

    Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", equation 1 without the
    scores of attention, which fused kernels do not keep: 34 bytes a position, width and layer in 16 bits. Checkpointed,
    each layer keeps its input, 2 bytes, and one layer at a time is whole (section 5).

    Args:
        positions: of a text in the body.
        hidden: H.
        layers: blocks.
        texts: of one pass of one worker.
        checkpointed: whether blocks are computed again for their gradient.
        low: whether they are computed in 16 bits; in 32 all is twice as much.
    """
    one = texts * positions * hidden * (1 if low else 2)
    return one * (34 + 2 * layers) if checkpointed else one * 34 * layers
