"""The recipe of an encoder: everything that decides which vector a text becomes.

Two vectors can be compared only if they come from the same recipe, so the recipe travels with every data set and
every checkpoint. Nothing is guessed from a model's name; what the model itself ships (pooling, Dense modules,
normalisation) is applied by its adapter. Loading weights is not done here.
"""

import importlib.util
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

PACKAGE_SCHEME = "pkg://"


class EncoderSpec(BaseModel):
    """What must be equal for two vectors to live in the same space."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: Literal["sentence-transformers", "openai", "hash"] = Field(
        default="sentence-transformers",
        description="sentence-transformers: the model's own modules; openai: a server's /v1/embeddings; hash: no "
        "model, a pseudo-random vector for each text, to measure all but the encoder",
    )
    model: str = Field(
        description="hub id, folder, or pkg://package/path for weights inside an installed package; openai: the "
        "server's name for it"
    )
    revision: str | None = Field(default=None, description="hub commit or tag; null takes the hub's default")
    dim: int = Field(gt=0, description="length of a vector; below the model's own it is truncated (Matryoshka)")
    prompt: str | None = Field(default=None, description="text put before each text, as the vectors' owner did")
    prompt_name: str | None = Field(
        default=None, description="one of the model's own prompts, such as query or document, in place of `prompt`"
    )
    task: str | None = Field(default=None, description="task adapter, for models that have them (jina-embeddings-v3)")
    normalized: bool = Field(default=True, description="whether vectors are scaled to unit length after truncation")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="arithmetic of the encoder")
    max_tokens: int | None = Field(default=None, gt=0, description="the encoder's own limit; null keeps the model's")
    trust_remote_code: bool = Field(
        default=False, description="run code from the model's repository: only if you trust it"
    )
    base_url: str | None = Field(default=None, description="openai: where the server is, such as http://host:8000/v1")
    dimensions: int | None = Field(
        default=None, gt=0, description="openai: ask the server for vectors of this length; null: its own"
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", description="openai: environment variable that holds the key, if one is needed"
    )

    @model_validator(mode="after")
    def _fields_of_its_kind(self) -> "EncoderSpec":
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("encoder.prompt and encoder.prompt_name exclude each other; give one")
        if self.kind == "openai" and self.base_url is None:
            raise ValueError("encoder.base_url is missing: kind openai needs the server's URL, http://host:port/v1")
        if "@" in urlsplit(self.base_url or "").netloc:
            raise ValueError(
                "encoder.base_url holds a name or a password before its @, and is kept with all that is made by it; "
                f"put the key into the environment, in {self.api_key_env} (encoder.api_key_env)"
            )
        foreign = {
            "sentence-transformers": ("base_url", "dimensions"),
            "openai": ("prompt_name", "task", "max_tokens"),
            "hash": ("prompt_name", "task", "max_tokens", "base_url", "dimensions"),
        }
        for name in foreign[self.kind]:
            if getattr(self, name) is not None:
                raise ValueError(f"encoder.{name} means nothing for kind {self.kind}; remove it")
        return self

    def differences(self, other: "EncoderSpec") -> list[str]:
        """Names the fields in which two recipes differ, as `field: ours != theirs`; where a server is plays no part."""
        elsewhere = {"base_url", "api_key_env"}
        ours, theirs = self.model_dump(exclude=elsewhere), other.model_dump(exclude=elsewhere)
        return [f"{name}: {ours[name]!r} != {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]


def resolve_model(reference: str) -> str:
    """Turns `pkg://package/path` into the folder inside the installed package; leaves anything else as it is.

    Raises:
        ValueError: the package is not installed, or holds no such folder.
    """
    if not reference.startswith(PACKAGE_SCHEME):
        return reference
    package, _, inner = reference.removeprefix(PACKAGE_SCHEME).partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            f"{reference}: the Python package {package!r} is not installed; "
            f"run `pip install {package.replace('_', '-')}` (for the embedded default: `pip install embinv[demo]`)"
        )
    folder = Path(next(iter(found.submodule_search_locations))) / inner
    if not folder.is_dir():
        raise ValueError(f"{reference}: the package {package!r} is installed but holds no folder {inner!r}")
    return str(folder)
