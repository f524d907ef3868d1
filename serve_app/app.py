"""The application of one encoder, as a Serve YAML names it: `import_path: serve_app.app:build_app`.

It has no HTTP route of its own: the gateway finds it by its name, and answers /invert/<encoder> with it. Nothing is
started here: `serve run`, `serve_app.deploy` and `serve_app.local` do that.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from ray.serve.config import AutoscalingConfig

from embinv.checkpoint import read_checkpoint_config, require_whole_weights
from embinv.encoders.settings import ACCELERATOR
from embinv.encoders.trust import require_trusted
from embinv.trained_corrector import require_corrector
from serve_app.deployments import EncoderDeployment, InverterDeployment, require_agreement
from serve_app.inverting import TRIED

LOOK_BACK_S = 12.0  # over which load is averaged; Serve wants more than the 10 s after which callers report it
PROJECT_ROOT = Path(__file__).resolve().parents[1]


class AppArgs(BaseModel):
    """`args` of one application in the Serve YAML."""

    model_config = ConfigDict(extra="forbid")

    encoder: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="name of the checkpoint: /invert/<encoder>")
    checkpoint: str = Field(min_length=1, description="its folder; if relative, then to the folder of serve_app/")
    dim: int | None = Field(default=None, gt=0, description="refuse a checkpoint whose vectors have another length")
    device: Literal["cpu", "cuda"] = "cpu"
    accelerator: str | None = Field(
        default=None,
        pattern=ACCELERATOR,
        description="the kind of GPU to ask Ray for, as Ray names it: A100, H100, L4; null: any",
    )
    threads: int = Field(default=1, gt=0, description="CPU threads of a forward pass, reserved in Ray as CPUs")
    max_batch_size: int | None = Field(
        default=None,
        gt=0,
        description="vectors decoded together; null: each replica tries some as it starts, and takes the quickest",
    )
    encode: bool = Field(default=False, description="serve the embedding model too: /encode/<encoder>, and `refine`")
    corrector: str | None = Field(
        default=None,
        min_length=1,
        description="checkpoint of a trained corrector, which `refine` asks; null: the inverter writes parts anew",
    )
    min_replicas: int = Field(default=1, ge=0, description="0: to zero when nobody asks, and loaded when somebody does")
    max_replicas: int = Field(default=1, gt=0)
    target_ongoing_requests: float | None = Field(
        default=None,
        gt=0,
        description="calls a replica should have at a time; null: max_batch_size, or the most tried",
    )
    upscale_delay_s: float = Field(default=5.0, ge=0, description="how long more must be asked before one is added")
    downscale_delay_s: float = Field(default=120.0, ge=0, description="how long less, before one is taken away")

    @model_validator(mode="after")
    def _asks_for_a_gpu_to_use_it(self) -> "AppArgs":
        if self.accelerator is not None and self.device != "cuda":
            raise ValueError("accelerator: names a GPU, but device is cpu; set device: cuda")
        return self

    @model_validator(mode="after")
    def _more_than_least(self) -> "AppArgs":
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, below min_replicas, {self.min_replicas}; raise it")
        return self

    @model_validator(mode="after")
    def _corrects_for_somebody(self) -> "AppArgs":
        if self.corrector is not None and not self.encode:
            raise ValueError("corrector: is asked by `refine` alone, which needs the embedding model; set encode: true")
        return self

    def autoscaling(self) -> AutoscalingConfig:
        """How many replicas there are at which load."""
        return AutoscalingConfig(
            min_replicas=self.min_replicas,
            initial_replicas=max(1, self.min_replicas),  # one is loaded at the start, so that a wrong checkpoint shows
            max_replicas=self.max_replicas,
            target_ongoing_requests=self.target_ongoing_requests or self.largest_batch(),
            upscale_delay_s=self.upscale_delay_s,
            downscale_delay_s=self.downscale_delay_s,
            look_back_period_s=LOOK_BACK_S,
        )

    def largest_batch(self) -> int:
        """Vectors that a replica may decode together."""
        return self.max_batch_size or TRIED[self.device][-1]

    def resources(self) -> dict[str, Any]:
        """What Ray reserves for a replica."""
        resources: dict[str, Any] = {"num_cpus": self.threads}
        if self.device == "cuda":
            resources["num_gpus"] = 1
        if self.accelerator is not None:
            resources["accelerator_type"] = self.accelerator
        return resources


def build_app(args: AppArgs) -> serve.Application:
    """Describes the application of one encoder.

    Raises:
        ValueError: there is no checkpoint at the place named, or it is one for another encoder.
    """
    checkpoint = checkpoint_folder(args.checkpoint)
    config = read_checkpoint_config(checkpoint)
    require_agreement(config, args.encoder, args.dim)
    require_whole_weights(
        checkpoint
    )  # here, a failure leaves the replicas of before at work; in a replica it would not
    corrector = None if args.corrector is None else checkpoint_folder(args.corrector, "corrector")
    if corrector is not None:
        require_whole_weights(corrector)
        require_corrector(corrector, read_checkpoint_config(corrector), config.pairs)
    embedder = None
    if args.encode:
        require_trusted(config.pairs.encoder)
        embedder = EncoderDeployment.options(
            ray_actor_options={"num_cpus": args.threads}, max_ongoing_requests=64
        ).bind(recipe=config.pairs.encoder.model_dump_json(), device="cpu", threads=args.threads)
    return InverterDeployment.options(
        # Enough for a batch at work and as many that gather meanwhile, and calls that only ask what is there.
        max_ongoing_requests=2 * args.largest_batch() + 2,
        ray_actor_options=args.resources(),
        autoscaling_config=args.autoscaling(),
    ).bind(
        checkpoint=str(checkpoint),
        encoder=args.encoder,
        dim=args.dim,
        device=args.device,
        threads=args.threads,
        max_batch_size=args.max_batch_size,
        embedder=embedder,
        corrector=None if corrector is None else str(corrector),
    )


def checkpoint_folder(checkpoint: str, field: str = "checkpoint") -> Path:
    """The absolute path of a checkpoint folder, which `field` names.

    Raises:
        ValueError: there is none; the message says which path was tried.
    """
    folder = (PROJECT_ROOT / Path(checkpoint).expanduser()).resolve()
    if not folder.is_dir():
        raise ValueError(
            f"{field}: there is no folder {folder}; run `make demo` to train the demo's, "
            "or give the absolute path of one on storage that every node sees"
        )
    return folder
