"""The application builder that a Serve YAML names: `import_path: serve_app.app:build_app`.

One application an encoder, each with its own arguments and route prefix. Nothing is started here: `serve run`,
`serve deploy` and `serve_app.local` do that.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from embinv.checkpoint import read_checkpoint_config
from serve_app.deployments import InverterDeployment, require_agreement

PROJECT_ROOT = Path(__file__).resolve().parents[1]


class AppArgs(BaseModel):
    """`args` of one application in the Serve YAML."""

    model_config = ConfigDict(extra="forbid")

    encoder: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="name of the checkpoint: /invert/<encoder>")
    checkpoint: str = Field(min_length=1, description="its folder; if relative, then to the folder of serve_app/")
    dim: int | None = Field(default=None, gt=0, description="refuse a checkpoint whose vectors have another length")
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, gt=0, description="CPU threads of a forward pass, reserved in Ray as CPUs")
    max_batch_size: int = Field(default=32, gt=0, description="vectors decoded together")
    batch_wait_s: float = Field(default=0.005, ge=0, le=1, description="how long a vector waits for others")


def build_app(args: AppArgs) -> serve.Application:
    """Describes the application of one encoder.

    Raises:
        ValueError: there is no checkpoint at the place named, or it is one for another encoder.
    """
    checkpoint = checkpoint_folder(args.checkpoint)
    require_agreement(read_checkpoint_config(checkpoint), args.encoder, args.dim)
    resources: dict[str, float] = {"num_cpus": args.threads}
    if args.device == "cuda":
        resources["num_gpus"] = 1
    return InverterDeployment.options(
        # At least a full batch of requests (Serve runs one batch at a time), and as many that gather meanwhile.
        max_ongoing_requests=2 * args.max_batch_size,
        ray_actor_options=resources,
    ).bind(
        checkpoint=str(checkpoint),
        encoder=args.encoder,
        dim=args.dim,
        device=args.device,
        threads=args.threads,
        max_batch_size=args.max_batch_size,
        batch_wait_s=args.batch_wait_s,
    )


def checkpoint_folder(checkpoint: str) -> Path:
    """The absolute path of a checkpoint folder.

    Raises:
        ValueError: there is none; the message says which path was tried.
    """
    folder = (PROJECT_ROOT / Path(checkpoint).expanduser()).resolve()
    if not folder.is_dir():
        raise ValueError(
            f"checkpoint: there is no folder {folder}; run `make demo` to train the demo's, "
            "or give the absolute path of one on storage that every node sees"
        )
    return folder
