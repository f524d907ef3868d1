"""What a config may say about a model, and the complete architectures that come of it and of the data.

Without torch, so that a config is read in a moment wherever it is read.
"""

import json
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 64, "layers": 2, "heads": 2, "ffn": 256},
    "small": {"hidden": 256, "layers": 4, "heads": 4, "ffn": 1024},
    "base": {"hidden": 768, "layers": 8, "heads": 12, "ffn": 3072},
    "large": {"hidden": 1024, "layers": 16, "heads": 16, "ffn": 4096},
}
PSEUDO_TOKENS = {"mdlm": 8, "t5": 16}  # of a model from scratch; a T5 reads the vector there alone
OWN_TO = {"mdlm": ("adaln", "rope", "qk_norm"), "t5": ("unit_rms",)}  # a family alone
OWN_TO_A_BACKBONE = ("size", "hidden", "layers", "heads", "ffn", "rope", "qk_norm", "tied_head")


class ModelSettings(BaseModel):
    """What a config may say about the model; a size names the four widths, each of which may be given by hand.

    Parameters outside token embedding and head, for vectors of 1,024 dimensions: tiny 0.75, small 7.3, base 93.8,
    large 314.7 million. `base` has the reference's widths and depth: without its gates (9.4) and pseudo-tokens (6.3)
    it comes to the reference's 78 million.
    """

    model_config = ConfigDict(extra="forbid")

    family: Literal["mdlm", "t5"] = Field(
        default="mdlm", description="mdlm: masked diffusion; t5: from left to right, as vec2text"
    )
    size: Literal["tiny", "small", "base", "large"] = Field(default="base", description="base is the reference's class")
    hidden: int | None = Field(default=None, gt=0, description="width; null takes the size's")
    layers: int | None = Field(default=None, gt=0, description="blocks; null takes the size's")
    heads: int | None = Field(default=None, gt=0, description="attention heads; null takes the size's")
    ffn: int | None = Field(default=None, gt=0, description="feed-forward width; null takes the size's")
    adaln: bool = Field(default=True, description="condition every block through AdaLN-Zero")
    pseudo_tokens: int | None = Field(
        default=None,
        ge=0,
        description="positions that hold the embedding: before the text, 0 is none, null: 8, or with a backbone 0; or "
        "all that a t5's encoder reads, null: 16",
    )
    rope: bool = Field(default=True, description="rotary positions; off: learned ones")
    qk_norm: bool = Field(default=True, description="RMS-normalised queries and keys")
    tied_head: bool = Field(default=True, description="the head shares its weights with the token embedding")
    trim_vocabulary: bool = Field(default=True, description="know only the tokens that occur in the training pairs")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of each branch's output dropped in training")
    backbone: str | None = Field(
        default=None,
        description="start from this ModernBERT or mmBERT, or of family t5 from this T5 (hub id, folder or "
        "pkg://package/path), whose own are widths and tokenizer; null: from scratch",
    )
    unit_rms: bool = Field(
        default=True, description="t5: scale vectors to unit root mean square; off: as vec2text, which can then read it"
    )
    backbone_revision: str | None = Field(default=None, description="hub commit or tag; null takes the hub's default")
    corrector: bool = Field(
        default=False, description="learn to correct an inverter's hypotheses, which jobs/hypotheses.py makes"
    )
    inverter: str | None = Field(
        default=None,
        description="corrector: begin as this inverter (folder of a checkpoint), whose own are architecture and "
        "vocabulary; null: from scratch",
    )

    @model_validator(mode="after")
    def _leaves_its_own_to_each_family(self) -> "ModelSettings":
        for family, names in OWN_TO.items():
            for name in names if family != self.family else ():
                if getattr(self, name) != (default := type(self).model_fields[name].default):
                    raise ValueError(
                        f"model.{name} is of model.family {family}, and this one is {self.family}; leave it at its "
                        f"default, {json.dumps(default)}"
                    )
        if self.family == "t5" and self.pseudo_tokens == 0:
            raise ValueError("model.pseudo_tokens is 0, and a t5 reads its vector nowhere else; give 1 or more")
        if self.inverter is not None and not (self.corrector and self.backbone is None):
            raise ValueError(
                "model.inverter is what a corrector begins as; give it with model.corrector true and no model.backbone"
            )
        if self.corrector and self.family == "mdlm" and self.backbone is not None:
            raise ValueError("model.corrector with a model.backbone is of model.family t5 alone; leave one of them out")
        return self

    @model_validator(mode="after")
    def _leaves_its_own_to_the_backbone(self) -> "ModelSettings":
        if self.backbone is None:
            if self.backbone_revision is not None:
                raise ValueError("model.backbone_revision means nothing without model.backbone; remove it")
            return self
        fields = type(self).model_fields
        given = [name for name in OWN_TO_A_BACKBONE if getattr(self, name) != fields[name].default]
        if given:
            default = json.dumps(fields[given[0]].default)
            raise ValueError(
                f"model.{given[0]} is decided by model.backbone {self.backbone!r}; leave it at its default, {default}"
            )
        return self

    def resolve(self, vocab_size: int, embedding_dim: int, seq_len: int) -> "MDLMConfig":
        """Fills in the size's widths and the sizes that data decide; of a denoiser from scratch."""
        assert self.family == "mdlm" and self.backbone is None, "what a backbone decides is read from its files"
        chosen = self.model_dump(include=set(MDLMConfig.model_fields))
        widths = {name: chosen.pop(name) or SIZES[self.size][name] for name in SIZES[self.size]}
        if chosen["pseudo_tokens"] is None:
            chosen["pseudo_tokens"] = PSEUDO_TOKENS["mdlm"]
        kind = MDLMCorrectorConfig if self.corrector else MDLMConfig
        return kind(vocab_size=vocab_size, embedding_dim=embedding_dim, seq_len=seq_len, **widths, **chosen)

    @property
    def kind(self) -> Literal["mdlm", "t5", "mdlm_corrector", "t5_corrector"]:
        """What the model learns."""
        if not self.corrector:
            return self.family
        return "mdlm_corrector" if self.family == "mdlm" else "t5_corrector"


class Architecture(BaseModel):
    """What every complete architecture says, as a checkpoint keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    family: ClassVar[Literal["mdlm", "backbone", "mdlm_corrector"]]

    vocab_size: int = Field(gt=0, description="V; ids 0..V-1 are predicted, id V is the mask")
    embedding_dim: int = Field(gt=0)
    seq_len: int = Field(gt=0)
    adaln: bool
    pseudo_tokens: int = Field(ge=0)
    dropout: float = Field(ge=0, lt=1)

    @property
    def mask_id(self) -> int:
        """The mask's id: one past the vocabulary, so that no head can predict it."""
        return self.vocab_size


class MDLMConfig(Architecture):
    """The architecture of a model from scratch."""

    family: ClassVar = "mdlm"

    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    ffn: int = Field(gt=0)
    rope: bool
    qk_norm: bool
    tied_head: bool

    def model_post_init(self, context: object) -> None:
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"model.hidden ({self.hidden}) must be a multiple of 2 x model.heads ({self.heads}) for rotary pairs"
            )


class MDLMCorrectorConfig(MDLMConfig):
    """The architecture of a corrector from scratch; it reads two vectors of `embedding_dim` numbers."""

    family: ClassVar = "mdlm_corrector"

    corrects: Literal[True] = True


class TransformerShape(BaseModel):
    """What a ModernBERT's own config says about its layers, under transformers' names; its dropouts are left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    hidden_activation: str
    max_position_embeddings: int = Field(gt=0)
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...]
    rope_parameters: dict[str, dict[str, Any]]
    local_attention: int = Field(gt=0)
    classifier_bias: bool
    classifier_activation: str
    tie_word_embeddings: bool


class BackboneConfig(Architecture):
    """The architecture of a model that started from a pretrained masked language model."""

    family: ClassVar = "backbone"

    backbone: str = Field(description="where the first weights came from; nothing is read from there again")
    transformer: TransformerShape

    @property
    def hidden(self) -> int:
        """H."""
        return self.transformer.hidden_size

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return self.transformer.num_hidden_layers
