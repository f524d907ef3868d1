"""What a config may say about training; nothing is decided here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from embinv.encoders.settings import ACCELERATOR


class TrainingSettings(BaseModel):
    """The `training` section of a config."""

    model_config = ConfigDict(extra="forbid")

    # --- length of the run: whichever comes first
    max_steps: int = Field(default=100_000, gt=0, description="optimizer steps at most")
    minutes: float | None = Field(default=None, gt=0, description="time budget; the schedule fits it (--minutes)")
    early_stop_patience: int | None = Field(
        default=None, gt=0, description="validations without a better one before stopping"
    )
    # --- the step
    batch_size: int | None = Field(
        default=None,
        gt=0,
        description="texts in an optimizer step, over all workers; null: a power of two a pass, on a GPU what fits, "
        "found by trial, on a CPU up to 64 in all; with few rows fewer, for 100 steps an epoch; at least one a pass",
    )
    gradient_accumulation: int = Field(default=1, gt=0, description="backward passes in one optimizer step")
    gradient_clipping: float = Field(default=1.0, ge=0, description="global gradient norm at most; 0 is off")
    times: Literal["low-discrepancy", "uniform"] = Field(
        default="low-discrepancy", description="how times are drawn: spread evenly over a batch, or each alone"
    )
    loss_weight: Literal["nelbo", "clipped", "uniform"] = Field(
        default="uniform",
        description="every hidden token the same, or 1/t of the NELBO (slower: docs/LOG.md), or 1/t up to 5",
    )
    embedding_noise: float = Field(
        default=0.0, ge=0, description="Gaussian noise on the vectors, as a share of their root mean square"
    )
    max_skipped: int = Field(
        default=10, gt=0, description="steps in a row without a finite loss or gradient before the run ends"
    )
    # --- the optimizer
    optimizer: Literal["muon", "adamw"] = Field(
        default="adamw", description="muon: hidden matrices by Muon, AdamW for the rest"
    )
    learning_rate: float = Field(default=3e-4, gt=0, description="AdamW's")
    muon_learning_rate: float = Field(
        default=2e-3, gt=0, description="Muon's, at AdamW's update size (match_rms_adamw)"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="on hidden matrices only")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    schedule: Literal["trapezoid", "cosine"] = "trapezoid"
    warmup: float = Field(default=0.02, ge=0, lt=1, description="share of the run in which the rate rises")
    decay: float = Field(default=0.4, ge=0, le=1, description="share of the run in which a trapezoid falls to zero")
    ema_decay: float = Field(
        default=0.9999,
        ge=0,
        lt=1,
        description="of the float32 moving average, at most; 0.9999 leaves its span to ema_share up to 100,000 steps",
    )
    ema_share: float = Field(
        default=0.1, gt=0, le=1, description="share of the steps so far that the moving average spans, up to ema_decay"
    )
    # --- the machine
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="cpu trains over gloo, cuda over nccl")
    accelerator: str | None = Field(
        default=None,
        pattern=ACCELERATOR,
        description="the kind of GPU to ask Ray for, as Ray names it: A100, H100, L4; null: any",
    )
    nodes: dict[str, str] = Field(
        default={}, description="labels of the nodes to train on, as Ray's label selectors; empty: any node"
    )
    workers: int = Field(default=1, gt=0, description="training processes (--workers)")
    threads: int | None = Field(
        default=None, gt=0, description="CPU threads of one worker; null: cores / workers, or on cuda 1"
    )
    precision: Literal["auto", "float32", "bfloat16-mixed", "bfloat16"] = Field(
        default="auto",
        description="bfloat16-mixed: autocast over float32 weights; auto: that where the hardware has it, or float32; "
        "bfloat16: DeepSpeed's own, AdamW only",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="DeepSpeed ZeRO stage")
    offload_optimizer: Literal["none", "cpu"] = Field(
        default="none", description="cpu: its state and its step leave the GPU; zero_stage 1, 2 or 3"
    )
    offload_parameters: Literal["none", "cpu"] = Field(
        default="none", description="cpu: weights come to the GPU when they are needed; zero_stage 3"
    )
    activation_checkpointing: bool = Field(
        default=False, description="computes the blocks again in the backward pass instead of keeping their activations"
    )
    compile: bool | None = Field(default=None, description="torch.compile the blocks; null: on cuda")
    max_failures: int = Field(default=3, ge=0, description="worker deaths survived before the run gives up")
    # --- looking at it
    validations: int = Field(default=20, gt=0, description="how often in a run to validate and to save")
    validation_rows: int = Field(
        default=256, gt=0, description="held-out texts generated from a full mask at each validation"
    )
    validation_steps: int = Field(default=8, gt=0, description="denoising passes of those generations")
    trackers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(
        default=["tensorboard"], description="where figures are shown; mlflow and wandb must be installed"
    )
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainingSettings":
        if self.accelerator is not None and self.device != "cuda":
            raise ValueError("training.accelerator names a GPU, but training.device is cpu; set it to cuda")
        per_pass = self.workers * self.gradient_accumulation
        if self.batch_size is not None and self.batch_size % per_pass:
            raise ValueError(
                f"training.batch_size ({self.batch_size}) must be a multiple of workers x gradient_accumulation "
                f"({per_pass})"
            )
        if self.optimizer == "muon" and (self.zero_stage != 0 or self.precision == "bfloat16"):
            raise ValueError(
                "training.optimizer muon needs whole float32 matrices: set training.zero_stage 0 and "
                "training.precision float32 or bfloat16-mixed, or training.optimizer adamw"
            )
        if self.offload_optimizer == "cpu" and self.zero_stage == 0:
            raise ValueError("training.offload_optimizer cpu needs training.zero_stage 1, 2 or 3")
        if self.offload_parameters == "cpu" and self.zero_stage != 3:
            raise ValueError("training.offload_parameters cpu needs training.zero_stage 3")
        if self.warmup + (self.decay if self.schedule == "trapezoid" else 0) > 1:
            raise ValueError("training.warmup + training.decay must be at most 1")
        return self

    @property
    def texts_per_step(self) -> int:
        """`batch_size`, once it is known; a job that trains fills in what null leaves open."""
        assert self.batch_size is not None, "batch_size is null: nothing has been found by trial yet"
        return self.batch_size

    @property
    def compiles(self) -> bool:
        """What `compile` comes to."""
        return self.device == "cuda" if self.compile is None else self.compile
