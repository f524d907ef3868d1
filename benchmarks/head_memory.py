"""How much memory the head's step needs, forward and backward, each way in a process of its own.

Shapes: M positions, H hidden, V vocabulary.
"""

import gc
import re
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from embinv.models.head import linear_cross_entropy


def dense_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """What `linear_cross_entropy` does, with the logits of all positions [M, V] at once."""
    entropies = F.cross_entropy(F.linear(hidden, weight, bias).float(), targets, reduction="none")
    return (entropies * weights).sum(), entropies.detach()


HEADS = {"fused": linear_cross_entropy, "dense": dense_cross_entropy}


def peak_bytes(head: str, positions: int, hidden: int, vocabulary: int, mixed: bool, device: str, threads: int) -> int:
    """Memory that one step of a head takes at its peak, above what its inputs take.

    Gradients of the head's weights count on both sides. On a CPU it is resident memory, so it must be called in a
    process that has not used more before; on a GPU, what PyTorch has allocated.

    Args:
        head: `fused` or `dense`.
        positions: M.
        hidden: H.
        vocabulary: V.
        mixed: bfloat16 autocast, or all in float32.
        device: `cpu` or `cuda`.
        threads: of the CPU.
    """
    torch.set_num_threads(threads)
    states = torch.randn(positions, hidden, device=device).requires_grad_()
    weight = torch.randn(vocabulary, hidden, device=device).mul_(0.02).requires_grad_()
    bias = torch.zeros(vocabulary, device=device).requires_grad_()
    targets = torch.randint(vocabulary, (positions,), device=device)
    weights = torch.full((positions,), 1.0 / positions, device=device)
    gc.collect()
    before = memory_bytes(device)
    with torch.autocast(device, torch.bfloat16, enabled=mixed):
        loss, _ = HEADS[head](states, weight, bias, targets, weights)
    loss.backward()
    return memory_bytes(device, highest=True) - before


def memory_bytes(device: str, highest: bool = False) -> int:
    """Memory now, or at the highest so far: PyTorch's on a GPU, else what is resident.

    Raises:
        ValueError: this is no Linux, whose kernel keeps the count for each program that is started.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() if highest else torch.cuda.memory_allocated()
    status = Path("/proc/self/status")
    if not status.is_file():
        raise ValueError("resident memory is read from /proc/self/status, which only Linux has; run this there")
    found = re.search(rf"{'VmHWM' if highest else 'VmRSS'}:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) * 1024
