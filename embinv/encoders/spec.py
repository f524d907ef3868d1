"""The recipe of an encoder: everything that decides which vector a text becomes.

Two vectors can be compared only if they come from the same recipe, so the recipe travels with every data set and
every checkpoint. Nothing is guessed from a model's name; what the model itself ships (pooling, Dense modules,
normalisation) is applied by its adapter. Loading weights is not done here.
"""

import importlib.util
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PACKAGE_SCHEME = "pkg://"


class EncoderSpec(BaseModel):
    """What must be equal for two vectors to live in the same space."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: Literal["sentence-transformers"] = Field(
        default="sentence-transformers", description="the adapter that applies the model's own modules"
    )
    model: str = Field(description="hub id, folder, or pkg://package/path for weights inside an installed package")
    revision: str | None = Field(default=None, description="hub commit or tag; null takes the hub's default")
    dim: int = Field(gt=0, description="length of a vector; below the model's own it is truncated (Matryoshka)")
    prompt: str | None = Field(default=None, description="text put before each document, as the vectors' owner did")
    task: str | None = Field(default=None, description="task adapter, for models that have them (jina-embeddings-v3)")
    normalized: bool = Field(default=True, description="whether vectors are scaled to unit length after truncation")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="arithmetic of the encoder")
    max_tokens: int | None = Field(default=None, gt=0, description="the encoder's own limit; null keeps the model's")
    trust_remote_code: bool = Field(
        default=False, description="run code from the model's repository: only if you trust it"
    )

    def differences(self, other: "EncoderSpec") -> list[str]:
        """Names the fields in which two recipes differ, as `field: ours != theirs`."""
        ours, theirs = self.model_dump(), other.model_dump()
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
