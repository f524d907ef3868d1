"""DeepSpeed behind the `Engine` seam: the only file that knows it.

ZeRO stages 0 to 3, offload, bfloat16, gradient accumulation and clipping come from the settings. The optimizer is
ours: DeepSpeed's own compiles for a minute on a CPU, and knows no Muon at stage 0. Read against deepspeed 0.19.8.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from embinv.models.inverter_model import InverterModel
from embinv.training.engine import prepare
from embinv.training.optimizer import build_optimizer, set_rate
from embinv.training.settings import TrainingSettings

TAG = "state"
BUCKET = 2**22  # gradients that are averaged at once, one tensor at least
BFLOAT16_SUMS = 8  # passes; a sum of n in bfloat16, which has 8 bits, rounds away log2(n) bits of the last gradient


def deepspeed_config(settings: TrainingSettings, world: int, universal: bool = False) -> dict[str, Any]:
    """The settings as a DeepSpeed config; `universal` for an engine that starts from a universal checkpoint."""
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    summed = settings.precision == "bfloat16" and settings.gradient_accumulation > 1
    pinned = settings.device == "cuda"
    if settings.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
    if settings.offload_parameters == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": pinned}
    return {
        "train_batch_size": settings.texts_per_step,
        "train_micro_batch_size_per_gpu": settings.texts_per_step // (world * settings.gradient_accumulation),
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "gradient_clipping": 0.0 if _whole_float32(settings) else settings.gradient_clipping,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # its CPU Adam is compiled where it runs; torch's does the same
        "bf16": {"enabled": settings.precision == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"} if summed and _sums_in_float32(settings) else {},
        "torch_autocast": {"enabled": settings.precision == "bfloat16-mixed", "dtype": "bfloat16"},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def require_exact_sums(settings: TrainingSettings) -> None:
    """Refuses to add up many gradients in bfloat16.

    Raises:
        ValueError: `gradient_accumulation` is above BFLOAT16_SUMS where DeepSpeed adds up in no other precision.
    """
    rounded = settings.precision == "bfloat16" and not _sums_in_float32(settings)
    if rounded and settings.gradient_accumulation > BFLOAT16_SUMS:
        raise ValueError(
            f"training.precision bfloat16 adds up the gradients of {settings.gradient_accumulation} passes "
            "(training.gradient_accumulation) in bfloat16 with this zero_stage and offload_optimizer, which rounds "
            f"most of the last ones away; set it to {BFLOAT16_SUMS} at most, or training.precision bfloat16-mixed, or "
            "training.zero_stage 2 without offload_optimizer or 3"
        )


def _sums_in_float32(settings: TrainingSettings) -> bool:
    """Whether DeepSpeed can add up a bfloat16 model's gradients in float32.

    Stage 0 refuses it, stage 1 takes another optimizer for it, of which nothing here is known to hold, and stage 2
    keeps its sums in the weights' precision when they lie in main memory.
    """
    return settings.zero_stage == 3 or (settings.zero_stage == 2 and settings.offload_optimizer == "none")


def _whole_float32(settings: TrainingSettings) -> bool:
    """Whether gradients and weights are plain float32 tensors on every worker; DeepSpeed gives no norm then."""
    return settings.zero_stage == 0 and settings.precision != "bfloat16"


class DeepSpeedEngine:
    """One training process, in the process group that is there.

    Args:
        model: starts alike on every worker.
        settings: with `batch_size` filled in and `precision` resolved.
        universal: the state to `load` is a universal checkpoint.
    """

    def __init__(self, model: InverterModel, settings: TrainingSettings, universal: bool = False) -> None:
        if settings.device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed
        from deepspeed.ops import __compatible_ops__

        if settings.device == "cpu":
            __compatible_ops__["deepspeed_shm_comm"] = False  # else a minute of compiling; gloo does the same work
        self.rank = torch.distributed.get_rank()
        self.world = torch.distributed.get_world_size()
        self.settings = settings
        prepare(model, settings)
        if settings.precision == "bfloat16":  # vectors and angles are float32 on their way to bfloat16 weights
            model.forward = torch.autocast(settings.device, torch.bfloat16)(model.forward)
        made = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(model, settings, shared=True),
            config=deepspeed_config(settings, self.world, universal),
            dist_init_required=False,
        )
        self.engine: Any = made[0]
        self.device = torch.device(self.engine.device)
        if settings.zero_stage == 0 and settings.precision == "bfloat16":
            # DeepSpeed makes the optimizer's state by a step without gradients, which its step count would remember.
            self.engine.optimizer.optimizer.state.clear()
            self.engine.optimizer.refresh_fp32_params()
        self._passes = 0  # of this accumulation
        if _whole_float32(settings):
            # DeepSpeed would copy all gradients into one new buffer, with one worker too; on a CPU that takes longer
            # than to send them (docs/LOG.md).
            self.engine.enable_backward_allreduce = False

    def loss(
        self, z_t: Tensor, embedding: Tensor, positions: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.engine(z_t, embedding, positions, targets, weights)

    def backward(self, loss: Tensor) -> None:
        self._passes += 1
        # Said outright, since DeepSpeed's own count would miss a step that is left out.
        self.engine.set_gradient_accumulation_boundary(self._passes == self.settings.gradient_accumulation)
        self.engine.backward(loss)
        if self.world > 1 and _whole_float32(self.settings) and self.engine.is_gradient_accumulation_boundary():
            self.engine.allreduce_gradients(bucket_size=BUCKET)

    def step(self, rate: float) -> float | None:
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()
            return None
        self._passes = 0
        set_rate(self.engine.optimizer, rate)
        if not _whole_float32(self.settings):
            self.engine.step()  # moves nothing where the norm is not finite
            return float(self.engine.get_global_grad_norm())
        clipping = self.settings.gradient_clipping or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.engine.module.parameters(), clipping))
        if math.isfinite(norm):
            self.engine.step()
        else:
            self.engine.zero_grad()
        return norm

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Whole float32 weights: the masters where the model itself is kept in bfloat16 or in parts."""
        named = self.engine.module.named_parameters()
        if self.settings.precision != "bfloat16" and self.settings.zero_stage < 3:
            yield from named  # every worker has all of them
            return
        if self.settings.zero_stage == 0:
            optimizer = self.engine.optimizer
            groups = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
            masters = {id(low): high for pair in groups for low, high in zip(*pair, strict=True)}
            yield from ((name, masters[id(parameter)]) for name, parameter in named)
            return
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in named:
            full = safe_get_full_fp32_param(parameter)
            assert full is not None, f"DeepSpeed keeps no float32 master of {name}"
            yield name, full.to(self.device)

    def total(self, values: Sequence[float]) -> list[float]:
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def agree(self, value: float) -> float:
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(tensor, src=0)
        return float(tensor)

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder), tag=TAG)

    def load(self, folder: Path, universal: bool = False) -> None:
        """Restores what `save` wrote, in `folder`/state.

        Args:
            folder: what `save` was given; with `universal`, `folder`/state is what deepspeed.checkpoint.ds_to_universal
                made of it, and the engine was made with `universal` too.
            universal: whether it is a universal checkpoint; those of stages 1 to 3 fit any number of workers. What
                `save` wrote at stage 0 does as it is.

        Raises:
            ValueError: the folder holds no state that can be read.
        """
        assert universal == bool(self.engine.load_universal_checkpoint()), "the engine was made for the other kind"
        if not (folder / TAG).is_dir():
            raise ValueError(f"{folder}: holds no DeepSpeed state to resume from")
        groups = self.engine.optimizer.param_groups
        settings = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        path, _ = self.engine.load_checkpoint(str(folder), tag=TAG)
        if path is None:
            raise ValueError(f"{folder}: its DeepSpeed state cannot be read")
        if not universal:
            return
        # Stage 3 gives every group the settings of the first, and one step counter to all weights.
        for group, before in zip(self.engine.optimizer.param_groups, settings, strict=True):
            group.update(before)
        for state in self.engine.optimizer.state.values():
            if torch.is_tensor(state.get("step")):
                state["step"] = state["step"].clone()
