"""DeepSpeed behind the `Engine` seam: the only file that knows it.

ZeRO stages 0 to 3, bfloat16, gradient accumulation and clipping come from the config. The optimizer is ours:
DeepSpeed's own compiles for a minute on a CPU, and knows no Muon at stage 0.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from embinv.models.mdlm import ConditionalMDLM
from embinv.training.optimizer import build_optimizer, set_rate
from embinv.training.settings import TrainingSettings

TAG = "state"


def deepspeed_config(settings: TrainingSettings, world: int) -> dict[str, Any]:
    """The settings as a DeepSpeed config."""
    micro = settings.batch_size // (world * settings.gradient_accumulation)
    return {
        "train_batch_size": settings.batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "gradient_clipping": settings.gradient_clipping,
        "zero_optimization": {"stage": settings.zero_stage},
        "bf16": {"enabled": settings.precision == "bfloat16"},
        "torch_autocast": {"enabled": settings.precision == "bfloat16-mixed", "dtype": "bfloat16"},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


class DeepSpeedEngine:
    """One training process. Made inside a Ray Train worker, whose process group it uses."""

    def __init__(self, model: ConditionalMDLM, settings: TrainingSettings) -> None:
        if settings.device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed
        from deepspeed.ops import __compatible_ops__

        if settings.device == "cpu":
            __compatible_ops__["deepspeed_shm_comm"] = False  # else a minute of compiling; gloo does the same work
        self.rank = torch.distributed.get_rank()
        self.world = torch.distributed.get_world_size()
        self.settings = settings
        self._zero = deepspeed.zero
        if settings.zero_stage == 3:  # the head uses a weight that belongs to the token embedding
            deepspeed.zero.register_external_parameter(model, model.token_embedding.weight)
        if settings.precision == "bfloat16":  # vectors and angles are float32 on their way to bfloat16 weights
            model.forward = torch.autocast(settings.device, torch.bfloat16)(model.forward)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=build_optimizer(model, settings),
            config=deepspeed_config(settings, self.world),
            dist_init_required=False,
        )
        self.engine = engine
        self.device = torch.device(engine.device)

    def loss(
        self, z_t: Tensor, embedding: Tensor, positions: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.engine(z_t, embedding, positions, targets, weights)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)

    def step(self, rate: float) -> float | None:
        last = self.engine.is_gradient_accumulation_boundary()
        set_rate(self.engine.optimizer, rate)
        self.engine.step()
        return float(self.engine.get_global_grad_norm() or 0.0) if last else None

    def skip(self) -> None:
        raise NotImplementedError

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Whole float32 weights: the masters where the model itself is kept in bfloat16 or in parts."""
        if self.settings.zero_stage == 0 and self.settings.precision != "bfloat16":
            yield from self.engine.module.named_parameters()
            return
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self.engine.module.named_parameters():
            full = safe_get_full_fp32_param(parameter)
            assert full is not None, f"DeepSpeed keeps no float32 master of {name}"
            yield name, full

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

    def load(self, folder: Path) -> None:
        path, _ = self.engine.load_checkpoint(str(folder), tag=TAG)
        if path is None:
            raise ValueError(f"{folder}: holds no DeepSpeed state to resume from")
