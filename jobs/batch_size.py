"""How many texts an optimizer step takes when the config leaves `training.batch_size` open.

On a GPU by trial: the micro-batch of a worker is doubled until the memory is full, with the very model, and with
tensors of the optimizer's size lying beside it. On a CPU memory is no bound and small steps learn fastest
(docs/LOG.md), so the number is fixed.

Shapes: B batch, L length, D embedding, M hidden positions.
"""

import os
from collections.abc import Callable

import torch
import torch.distributed

from embinv.models.inverter_model import InverterModel
from embinv.training.engine import prepare
from embinv.training.settings import TrainingSettings

ON_A_CPU = 64  # texts a step: what learns fastest there (docs/LOG.md)
AT_MOST = 4096  # texts a step found by trial
STEPS_PER_EPOCH = 100  # at least: few rows are not spent in a handful of steps
MEMORY = 0.8  # share of a GPU; the rest is for DeepSpeed's buffers and a fragmented allocator


def resolved(settings: TrainingSettings, model: InverterModel, rows: int) -> TrainingSettings:
    """Fills in `batch_size` where it is null; every worker must call it, and gets the same.

    Args:
        settings: with `precision` resolved.
        model: the model to be trained, still on the CPU and not yet in an engine; it comes back as it was.
        rows: of the training split.

    Raises:
        ValueError: not even one text a worker fits.
    """
    if settings.batch_size is not None:
        return settings
    per_pass = settings.workers * settings.gradient_accumulation
    most = max(1, min(AT_MOST, rows // STEPS_PER_EPOCH) // per_pass)
    if settings.device == "cpu":
        micro = power_of_two(min(most, max(1, ON_A_CPU // per_pass)))
    else:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        micro = least_of_all(largest_that_fits(Trial(model, settings, device), most), device)
        if micro == 0:
            raise ValueError(
                "training.batch_size null: not even one text a worker fits on the GPU; set "
                "training.activation_checkpointing true or a smaller model.size, or set training.batch_size to use "
                "what zero_stage 3 and offloading save"
            )
    return settings.model_copy(update={"batch_size": micro * per_pass})


def largest_that_fits(attempt: Callable[[int], None], most: int) -> int:
    """Doubles from 1 to `most` for as long as `attempt` succeeds.

    Args:
        attempt: makes a pass of that many texts; raises torch.OutOfMemoryError if they do not fit.
        most: not to be exceeded.

    Returns:
        A power of two, or 0 if not even one fits.
    """
    found, size = 0, 1
    while size <= most:
        try:
            attempt(size)
        except torch.OutOfMemoryError:
            break
        found, size = size, 2 * size
    return found


def power_of_two(number: int) -> int:
    """The largest power of two that is not above `number`."""
    return 1 << (number.bit_length() - 1)


def least_of_all(number: int, device: torch.device) -> int:
    """The smallest number of all workers."""
    if not torch.distributed.is_initialized():
        return number
    tensor = torch.tensor([number], device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN)
    return int(tensor)


class Trial:
    """Forward and backward passes of a model on random texts, with what a step holds beside them.

    Args:
        model: is moved to the device for each pass, and back.
        settings: its precision, and how optimizer and activations are kept.
        device: a GPU whose memory is watched, or the CPU, which never runs out.
    """

    def __init__(self, model: InverterModel, settings: TrainingSettings, device: torch.device) -> None:
        self.model, self.settings, self.device = model, settings, device

    def __call__(self, size: int) -> None:
        """Makes one pass of `size` texts.

        Raises:
            torch.OutOfMemoryError: they do not fit into MEMORY of the device.
        """
        cuda = self.device.type == "cuda"
        home = next(self.model.parameters()).device
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self._pass(size)
            if cuda:
                total = torch.cuda.get_device_properties(self.device).total_memory
                if torch.cuda.max_memory_reserved(self.device) > MEMORY * total:
                    raise torch.OutOfMemoryError(f"{size} texts take more than {MEMORY:.0%} of the memory")
        finally:
            self.model.zero_grad(set_to_none=True)
            self.model.to(home)
            if cuda:
                torch.cuda.empty_cache()

    def _pass(self, size: int) -> None:
        """All positions asked, which is the most that a step can ask for."""
        settings, config = self.settings, self.model.config
        prepare(self.model, settings.model_copy(update={"compile": False}))  # compiled blocks take no more
        self.model.to(self.device)
        held = [torch.empty_like(p, dtype=torch.float32) for p in self.model.parameters() for _ in range(self._copies)]
        mixed = settings.precision != "float32"
        tokens = torch.zeros(size, self.model.texts_given * config.seq_len, dtype=torch.int64, device=self.device)
        embedding = torch.ones(size, self.model.vectors_given * config.embedding_dim, device=self.device)
        asked = torch.ones((size, config.seq_len), dtype=torch.bool, device=self.device)  # [B, L]
        targets = torch.zeros(asked.numel(), dtype=torch.int64, device=self.device)  # [M]
        weights = torch.ones(asked.numel(), device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            loss, _ = self.model(tokens, embedding, asked, targets, weights)
        loss.backward()
        del held

    @property
    def _copies(self) -> int:
        """Float32 tensors of the model's size beside weights and gradients: moving average, AdamW's two moments.

        A bfloat16 model with float32 masters comes to the same. What ZeRO stages partition is counted in full.
        """
        return 1 if self.settings.offload_optimizer == "cpu" else 3
