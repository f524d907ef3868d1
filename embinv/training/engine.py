"""The seam to whatever moves the weights: one process of plain PyTorch here, DeepSpeed in the train job.

An engine owns the model, its optimizer and its place among the workers. The loop decides what is computed; the
engine, how it is spread, accumulated, clipped and kept.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from embinv.models.inverter_model import InverterModel
from embinv.training.optimizer import set_rate
from embinv.training.settings import TrainingSettings

PRECISIONS = ("float32", "bfloat16-mixed")  # of a LocalEngine


class Engine(Protocol):
    """What the loop asks of a trained model."""

    rank: int
    world: int
    device: torch.device

    def loss(
        self, z_t: Tensor, embedding: Tensor, positions: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The model's forward with targets: the loss, and each position's cross-entropy [M]."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of one pass; called `gradient_accumulation` times before each step counts."""
        ...

    def step(self, rate: float) -> float | None:
        """Ends one pass; the last pass of an accumulation moves the weights at `rate` x the full rate.

        Returns:
            None, or after the last pass the norm of all workers' gradient before clipping. Where that is not finite, no
            weight moved, and the next accumulation starts clean.
        """
        ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Whole weights by name, on every worker, however they are partitioned."""
        ...

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the workers; every worker must call it."""
        ...

    def agree(self, value: float) -> float:
        """Rank 0's value, on every worker."""
        ...

    def save(self, folder: Path) -> None:
        """Writes this worker's share of weights and optimizer."""
        ...

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote."""
        ...


def prepare(model: InverterModel, settings: TrainingSettings) -> None:
    """Makes the blocks run as the settings say: computed twice to save memory, compiled, or neither."""
    model.recompute(settings.activation_checkpointing)
    if settings.compiles:
        model.compile_blocks()


class LocalEngine:
    """Plain PyTorch in this process: notebooks, tests, and the measure of what DeepSpeed adds.

    Args:
        model: is moved to the device.
        optimizer: of the model's parameters.
        accumulation: passes of one step.
        clipping: global gradient norm at most; 0 is off.
        device: cpu or cuda.
        precision: float32, or bfloat16-mixed for autocast over the same float32 weights.

    Raises:
        ValueError: another precision.
    """

    rank = 0
    world = 1

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accumulation: int = 1,
        clipping: float = 0.0,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision {precision} is not one that a LocalEngine computes in; choose {' or '.join(PRECISIONS)} "
                "(resolve_precision turns auto into one of them; bfloat16 is DeepSpeed's)"
            )
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.optimizer = optimizer
        self.accumulation = accumulation
        self.clipping = clipping
        self.mixed = precision == "bfloat16-mixed"
        self.passes = 0

    def loss(
        self, z_t: Tensor, embedding: Tensor, positions: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            return self.model(z_t, embedding, positions, targets, weights)

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()

    def step(self, rate: float) -> float | None:
        self.passes += 1
        if self.passes % self.accumulation:
            return None
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.clipping or math.inf))
        if math.isfinite(norm):
            set_rate(self.optimizer, rate)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters()

    def total(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def agree(self, value: float) -> float:
        return value

    def save(self, folder: Path) -> None:
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, folder / "state.pt")

    def load(self, folder: Path) -> None:
        state = torch.load(folder / "state.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
