"""The checkpoint folder: everything that turns a vector into text, loadable offline and moved by copying.

    model.safetensors   EMA weights, float32
    config.json         `CheckpointConfig`: format version, architecture, recipe of the pairs, training, statistics
    vocabulary.safetensors  which of the tokenizer's ids the model knows
    tokenizer.json ...  the decoder's tokenizer
    statistics.safetensors  `Shape` of the training vectors, to recognise others of their kind
    calibration.json    what its confidence is worth, once jobs/evaluate.py has fitted it
    provenance.json     who trained it, where, when and with what
    README.md           a model card with the measured figures

Nothing is unpickled. A folder appears whole or not at all. The state that training resumes from is kept elsewhere.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from embinv.calibration import Calibrations
from embinv.checkpoint_versions import FORMAT_VERSION, Family, family_by_fields, read_as_newest
from embinv.data.folders import replace_folder
from embinv.data.schema import PairsRecipe, reasons
from embinv.data.tokenizer import TextTokenizer
from embinv.data.versions import this_release
from embinv.data.vocabulary import Vocabulary
from embinv.models.build import empty_model
from embinv.models.settings import Architecture, BackboneConfig, MDLMConfig, MDLMCorrectorConfig
from embinv.models.t5_settings import T5CorrectorConfig, T5InverterConfig
from embinv.provenance.sittings import PROVENANCE_FILE
from embinv.spaces.moments import EmbeddingStatistics, Shape
from embinv.spaces.recognition import Seen

STATISTICS_FILE = "statistics.safetensors"


def _family(model: Any) -> Family:
    """The family of an architecture, or of its JSON."""
    return model.family if isinstance(model, Architecture | T5InverterConfig) else family_by_fields(model)


class CheckpointConfig(BaseModel):
    """config.json."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    written_by: str | None = Field(
        default_factory=this_release, description="release of embinv, so that an older one can name it; null: unknown"
    )
    name: str
    model: Annotated[
        Annotated[MDLMConfig, Tag("mdlm")]
        | Annotated[BackboneConfig, Tag("backbone")]
        | Annotated[T5InverterConfig, Tag("t5")]
        | Annotated[MDLMCorrectorConfig, Tag("mdlm_corrector")]
        | Annotated[T5CorrectorConfig, Tag("t5_corrector")],
        Discriminator(_family),
    ]
    family: Family = Field(
        default_factory=lambda known: _family(known.get("model")),
        description="mdlm: masked diffusion from scratch; backbone: from a pretrained model; t5: left to right; "
        "and the correctors of the first and the last",
    )
    pairs: PairsRecipe = Field(description="the recipe of the data: encoder, tokenizer hash, special ids, L")
    training: dict[str, Any] = Field(
        description="how many texts and a checksum of their ids, steps, seconds, figures of the validation"
    )
    statistics: EmbeddingStatistics | None = Field(
        default=None, description="null where the training vectors are not known: an inverter that others trained"
    )

    @property
    def corrects(self) -> bool:
        """Whether it is a corrector's, and no inverter's."""
        return self.family.endswith("_corrector")

    @model_validator(mode="after")
    def _family_is_the_models(self) -> "CheckpointConfig":
        if self.family != self.model.family:
            raise ValueError(f"family is {self.family!r}, but model is one of {self.model.family!r}")
        return self


@dataclass(frozen=True)
class Checkpoint:
    """A loaded folder; its model is a `MaskedDenoiser`, or of family t5 a `T5Writer`."""

    config: CheckpointConfig
    model: nn.Module
    tokenizer: TextTokenizer
    vocabulary: Vocabulary
    calibrations: Calibrations = field(default_factory=Calibrations)
    shape: Shape | None = None

    @property
    def trained_on(self) -> Seen | None:
        """What the training vectors look like; None where that is not known."""
        return seen_in_training(self.config, self.shape)


def seen_in_training(config: CheckpointConfig, shape: Shape | None) -> Seen | None:
    """What a checkpoint keeps of its training vectors."""
    return None if config.statistics is None else Seen(config.statistics, shape)


def save_checkpoint(
    folder: str | Path,
    model: nn.Module,
    config: CheckpointConfig,
    tokenizer: TextTokenizer,
    vocabulary: Vocabulary,
    shape: Shape | None = None,
    provenance: str | None = None,
) -> None:
    """Writes a checkpoint folder; an older one at the same place is replaced once the new one is whole.

    Args:
        folder: to write.
        model: whose weights are kept.
        config: says what it is.
        tokenizer: the decoder's.
        vocabulary: what of it the model knows.
        shape: of the training vectors; None where they are not known.
        provenance: text of the file that says how it was made; None leaves it out.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    (partial / "config.json").write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(partial))
    vocabulary.save(partial)
    if shape is not None:
        shape.save(partial / STATISTICS_FILE)
    if provenance is not None:
        (partial / PROVENANCE_FILE).write_text(provenance, encoding="utf-8")
    (partial / "README.md").write_text(model_card(config), encoding="utf-8")
    replace_folder(partial, folder)


def read_checkpoint_config(folder: str | Path) -> CheckpointConfig:
    """Reads config.json, of an older format too.

    Raises:
        ValueError: the folder is no checkpoint, or one of a format this version does not read.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"--checkpoint {folder}: no config.json; give a folder that jobs/train.py wrote")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return CheckpointConfig.model_validate(read_as_newest(tree, f"--checkpoint {folder}"))
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
    model = empty_model(config.model)
    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"--checkpoint {folder}: model.safetensors cannot be read ({error})") from error
    _require_same_tensors(weights, model.state_dict(), folder)
    model.load_state_dict(weights)
    calibrations = Calibrations.load(folder)
    shape = Shape.load(folder / STATISTICS_FILE)
    return Checkpoint(config, model.to(torch.device(device)).eval(), tokenizer, vocabulary, calibrations, shape)


def require_whole_weights(folder: str | Path) -> None:
    """Looks whether the weights of a checkpoint are all there, without reading them: a header and a length.

    Raises:
        ValueError: they are not.
    """
    try:
        with safe_open(Path(folder) / "model.safetensors", framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise ValueError(f"--checkpoint {folder}: model.safetensors cannot be read ({error})") from error


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
    encoder, training = config.pairs.encoder, config.training
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in training.items()}
    figures = "\n".join(f"| {name} | {value} |" for name, value in shown.items())
    writes = config.family.startswith("t5")
    does, use, measured = _CORRECTS if config.corrects else _INVERTS
    return f"""---
library_name: embinv
tags: [embedding-inversion, {"text-generation" if writes else "masked-diffusion"}]
---
# {config.name}: {"a corrector" if config.corrects else "an inverter"} for {encoder.model}

{does.format(dim=encoder.dim, model=encoder.model, tokens=config.pairs.seq_len - 1)}
{_architecture(config.model)}

```bash
{use}
```

{measured}

| | |
|---|---|
{figures}

Made for measuring what a store of vectors gives away. Invert only vectors that you may read.
"""


_INVERTS = (
    "Recovers text from a {dim}-dimensional vector of {model}, up to {tokens} tokens.",
    "embinv invert --checkpoint . --vectors vectors.npy --out recovered.parquet",
    """Figures of the validation split, generated from the vector alone, content tokens only; `report.md` of
jobs/evaluate.py has those of the test split with their baselines. Accuracy at a partial mask says how well gaps are
filled, not how well a vector is inverted.""",
)
_CORRECTS = (
    "Brings a text of up to {tokens} tokens closer to a {dim}-dimensional vector of {model}, given its own vector.",
    "embinv invert --checkpoint INVERTER --corrector . --refine-steps 5 --vectors vectors.npy --out recovered.parquet",
    """Figures of the validation split after one correction of an inverter's hypotheses, content tokens only, beside the
accuracy of the hypotheses themselves. It reads the encoder: each correction embeds texts.""",
)


def _architecture(model: Architecture | T5InverterConfig) -> str:
    """A sentence of the card."""
    if isinstance(model, T5InverterConfig):
        shape = model.transformer
        return (
            f"A T5 that reads a vector as {model.pseudo_tokens} pseudo-tokens and writes from left to right:\n"
            f"{shape.num_layers} + {shape.num_decoder_layers} layers, hidden {shape.d_model}."
        )
    start = f"started from {model.backbone}" if isinstance(model, BackboneConfig) else "trained from scratch"
    assert isinstance(model, MDLMConfig | BackboneConfig)
    return (
        f"A conditional masked diffusion language model, {start}: {model.layers} layers, hidden {model.hidden},\n"
        f"AdaLN-Zero {'on' if model.adaln else 'off'}, {model.pseudo_tokens} pseudo-tokens."
    )
