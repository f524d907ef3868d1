"""The checkpoint folder: everything that turns a vector into text, loadable offline and moved by copying.

    model.safetensors   EMA weights, float32
    config.json         `CheckpointConfig`: format version, architecture, recipe of the pairs, training, statistics
    vocabulary.safetensors  which of the tokenizer's ids the model knows
    tokenizer.json ...  the decoder's tokenizer
    README.md           a model card with the measured figures

Nothing is unpickled. A folder appears whole or not at all. The state that training resumes from is kept elsewhere.
"""

import ctypes
import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from embinv.data.schema import PairsRecipe, reasons
from embinv.data.tokenizer import TextTokenizer
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import empty_denoiser
from embinv.models.denoiser import MaskedDenoiser
from embinv.models.settings import Architecture, BackboneConfig, MDLMConfig

FORMAT_VERSION = 1
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux: fcntl.h and fs.h


class EmbeddingStatistics(BaseModel):
    """What the training embeddings look like, to recognise vectors that come from elsewhere."""

    model_config = ConfigDict(extra="forbid")

    rows: int
    norm_mean: float
    norm_std: float
    mean: list[float]
    std: list[float]


def _family(model: Any) -> Literal["mdlm", "backbone"]:
    """The family of an architecture, or of its JSON."""
    if isinstance(model, Architecture):
        return model.family
    return "backbone" if isinstance(model, dict) and "backbone" in model else "mdlm"


class CheckpointConfig(BaseModel):
    """config.json."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    name: str
    model: Annotated[
        Annotated[MDLMConfig, Tag("mdlm")] | Annotated[BackboneConfig, Tag("backbone")], Discriminator(_family)
    ]
    family: Literal["mdlm", "backbone"] = Field(
        default_factory=lambda known: _family(known.get("model")), description="mdlm: trained from scratch"
    )
    pairs: PairsRecipe = Field(description="the recipe of the data: encoder, tokenizer hash, special ids, L")
    training: dict[str, Any] = Field(description="steps, seconds, samples per second, figures of the validation")
    statistics: EmbeddingStatistics

    @model_validator(mode="after")
    def _family_is_the_models(self) -> "CheckpointConfig":
        if self.family != self.model.family:
            raise ValueError(f"family is {self.family!r}, but model is one of {self.model.family!r}")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A loaded folder."""

    config: CheckpointConfig
    model: MaskedDenoiser
    tokenizer: TextTokenizer
    vocabulary: Vocabulary


def embedding_statistics(embeddings: np.ndarray) -> EmbeddingStatistics:
    """Statistics of training embeddings [N, D], rounded to what a comparison needs."""
    vectors = embeddings.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    return EmbeddingStatistics(
        rows=len(vectors),
        norm_mean=round(float(norms.mean()), 6),
        norm_std=round(float(norms.std()), 6),
        mean=[round(float(value), 6) for value in vectors.mean(axis=0)],
        std=[round(float(value), 6) for value in vectors.std(axis=0)],
    )


def save_checkpoint(
    folder: str | Path,
    model: MaskedDenoiser,
    config: CheckpointConfig,
    tokenizer: TextTokenizer,
    vocabulary: Vocabulary,
) -> None:
    """Writes a checkpoint folder; an older one at the same place is replaced once the new one is whole."""
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    (partial / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(partial))
    vocabulary.save(partial)
    (partial / "README.md").write_text(model_card(config), encoding="utf-8")
    replace_folder(partial, folder)


def replace_folder(new: Path, folder: Path) -> None:
    """Puts a finished folder in the place of an older one; what is there is always whole.

    On Linux the two change places in one step, so that a kill at any moment leaves one of them there. Where the file
    system knows no such step, the older one is moved aside first.
    """
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if not folder.exists():
        new.rename(folder)
        return
    try:
        _exchange(new, folder)
    except OSError:
        folder.rename(old)
        new.rename(folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Lets two paths change places at once: renameat2(2) with RENAME_EXCHANGE.

    Raises:
        OSError: this system or file system cannot.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, "no renameat2 here")
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def read_checkpoint_config(folder: str | Path) -> CheckpointConfig:
    """Reads config.json.

    Raises:
        ValueError: the folder is no checkpoint, or one of a format this version does not read.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"--checkpoint {folder}: no config.json; give a folder that jobs/train.py wrote")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        version = tree.get("format_version") if isinstance(tree, dict) else None
        if version != FORMAT_VERSION:
            raise ValueError(f"--checkpoint {folder}: format_version {version}, this embinv reads {FORMAT_VERSION}")
        return CheckpointConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(f"{path}: not a checkpoint's config ({reasons(error)})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a checkpoint's config ({error})") from error


def load_checkpoint(folder: str | Path, device: str = "cpu") -> Checkpoint:
    """Loads a checkpoint folder, offline.

    Raises:
        ValueError: a part is absent, or the weights do not fit the architecture; the message names which.
    """
    folder = Path(folder)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: this PyTorch sees no CUDA device; use --device cpu")
    config = read_checkpoint_config(folder)
    tokenizer = TextTokenizer(str(folder))
    if tokenizer.fingerprint() != config.pairs.tokenizer_hash:
        raise ValueError(f"--checkpoint {folder}: tokenizer.json is not the one that the model was trained with")
    vocabulary = Vocabulary.load(folder)
    if vocabulary.size != config.model.vocab_size or vocabulary.full_size != config.pairs.vocab_size:
        raise ValueError(f"--checkpoint {folder}: vocabulary.safetensors does not belong to config.json's vocab_size")
    model = empty_denoiser(config.model)
    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"--checkpoint {folder}: model.safetensors cannot be read ({error})") from error
    _require_same_tensors(weights, model.state_dict(), folder)
    model.load_state_dict(weights)
    return Checkpoint(config, model.to(torch.device(device)).eval(), tokenizer, vocabulary)


def _require_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], folder: Path) -> None:
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not part of the architecture" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if found[name].shape != expected[name].shape
    ]
    if problems:
        raise ValueError(f"--checkpoint {folder}: model.safetensors: " + "; ".join(sorted(problems)))


def model_card(config: CheckpointConfig) -> str:
    """The README.md of a checkpoint: what it inverts, how it was made, what was measured while training."""
    encoder, training, model = config.pairs.encoder, config.training, config.model
    start = f"started from {model.backbone}" if isinstance(model, BackboneConfig) else "trained from scratch"
    figures = "\n".join(f"| {name} | {value} |" for name, value in training.items())
    return f"""---
library_name: embinv
tags: [embedding-inversion, masked-diffusion]
---
# {config.name}: an inverter for {encoder.model}

Recovers text from a {encoder.dim}-dimensional vector of {encoder.model}, up to {config.pairs.seq_len - 1} tokens. A
conditional masked diffusion language model, {start}: {model.layers} layers, hidden {model.hidden}, AdaLN-Zero
{"on" if model.adaln else "off"}, {model.pseudo_tokens} pseudo-tokens.

```bash
embinv invert --checkpoint . --vectors vectors.npy --out recovered.parquet
```

Figures of the validation split, generated from a full mask, content tokens only; `report.md` of jobs/evaluate.py has
those of the test split with their baselines. Accuracy at a partial mask says how well gaps are filled, not how well
a vector is inverted.

| | |
|---|---|
{figures}

Made for measuring what a store of vectors gives away. Invert only vectors that you may read.
"""
