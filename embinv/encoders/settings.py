"""How texts are encoded on the hardware at hand: the `encoding` section of a config. But for rounding, none of it
decides which vector a text becomes; that is the recipe's (spec.py)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ACCELERATOR = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class EncodingSettings(BaseModel):
    """How encoding spreads over a machine or a cluster."""

    model_config = ConfigDict(extra="forbid")

    device: Literal["cpu", "cuda"] = "cpu"
    accelerator: str | None = Field(
        default=None,
        pattern=ACCELERATOR,
        description="the kind of GPU to ask Ray for, as Ray names it: A100, H100, L4; null: any",
    )
    tokenizer_nodes: dict[str, str] = Field(
        default={},
        description="labels of the nodes that read and tokenise, as Ray's label selectors: {ray.io/node-group: cpu} "
        "keeps that work off the CPUs of GPU nodes; empty: any node",
    )
    workers: int | None = Field(
        default=None,
        gt=0,
        description="encoder processes; null: one a GPU, or one a core up to four a node; openai and hash: 1",
    )
    threads: int | None = Field(default=None, gt=0, description="CPU threads of one encoder; null: cores / workers")
    batch_tokens: int | None = Field(
        default=None, gt=0, description="tokens in one forward pass, padding included; null: by device"
    )
    tokenizers: int | None = Field(
        default=None,
        gt=0,
        description="CPU tasks that read and tokenise at once; null: one an encoder if those are models on CPUs, else "
        "cores + 1",
    )
    precision: Literal["auto", "recipe"] = Field(
        default="auto",
        description="auto: a float32 recipe runs in bfloat16 where the hardware multiplies in it; recipe: as it says",
    )
    compile: bool = Field(default=False, description="torch.compile the encoder: minutes at the start, faster after")
    requests: int = Field(default=8, gt=0, description="openai: requests in flight of one worker")
    request_rows: int = Field(default=64, gt=0, description="openai: texts in one request")
    timeout_s: float = Field(default=60.0, gt=0, description="openai: seconds until a request counts as failed")
    retries: int = Field(default=8, ge=0, description="openai: further tries after a 429, a 5xx or no answer")

    @model_validator(mode="after")
    def _asks_for_a_gpu_to_use_it(self) -> "EncodingSettings":
        if self.accelerator is not None and self.device != "cuda":
            raise ValueError("encoding.accelerator names a GPU, but encoding.device is cpu; set it to cuda")
        return self
