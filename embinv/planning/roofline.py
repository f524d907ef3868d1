"""How long a forward or a training pass takes at least: arithmetic, memory and the start of kernels (the roofline).

Williams, Waterman and Patterson 2009: a pass takes as long as the slowest of what it needs. Beside arithmetic and
memory stand kernels here, since a small model's pass ends before Python has asked for the next one.
"""

from dataclasses import dataclass

from embinv.planning.accelerators import Accelerator

WEIGHT_READS = {"inference": 1, "training": 3}  # forward; and for the gradients of inputs and of weights


@dataclass(frozen=True)
class Pass:
    """What one pass over a batch needs.

    Attributes:
        flops: of the whole batch.
        weight_bytes: that are read, once.
        kernels: that are started.
        precision: that it multiplies in.
    """

    flops: float
    weight_bytes: float
    kernels: float
    precision: str


@dataclass(frozen=True)
class Efficiency:
    """What share of a GPU a program reaches.

    Attributes:
        mfu: of its peak.
        bandwidth: of its memory's bandwidth.
        kernel_seconds: to start a kernel.
    """

    mfu: float
    bandwidth: float
    kernel_seconds: float


def pass_seconds(work: Pass, gpu: Accelerator, efficiency: Efficiency) -> dict[str, float]:
    """Seconds by what is needed; the pass takes the longest of them."""
    return {
        "arithmetic": work.flops / (gpu.peak(work.precision) * efficiency.mfu),
        "memory": work.weight_bytes / (gpu.memory_bytes_per_second * efficiency.bandwidth),
        "kernels": work.kernels * efficiency.kernel_seconds,
    }


def bound(seconds: dict[str, float]) -> str:
    """What takes the longest."""
    return max(seconds, key=lambda name: seconds[name])


def exchange_seconds(
    sent: float, gpus: int, gpus_per_node: int, link: float, network: float, share: float, hidden: float
) -> float:
    """Seconds of exchanging gradients in a step that nothing else hides.

    One ring goes through all GPUs; where it leaves a node it goes over the node's network.

    Args:
        sent: bytes that each worker sends.
        gpus: of the run.
        gpus_per_node: in one machine.
        link: bytes a second between GPUs of a machine, one way.
        network: bytes a second between machines, one way.
        share: of either that is reached.
        hidden: share of the exchange that happens while other things do.
    """
    if gpus == 1:
        return 0.0
    rate = link if gpus <= gpus_per_node else min(link, network)
    return (1.0 - hidden) * sent / (rate * share)
