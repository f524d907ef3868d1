"""What a config may say about a model, and the complete architecture that comes of it and of the data.

Without torch, so that a config is read in a moment wherever it is read.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 64, "layers": 2, "heads": 2, "ffn": 256},
    "small": {"hidden": 256, "layers": 4, "heads": 4, "ffn": 1024},
    "base": {"hidden": 768, "layers": 8, "heads": 12, "ffn": 3072},
}


class ModelSettings(BaseModel):
    """What a config may say about the model; a size names the four widths, each of which may be given by hand."""

    model_config = ConfigDict(extra="forbid")

    size: Literal["tiny", "small", "base"] = Field(default="base", description="base is the reference's class")
    hidden: int | None = Field(default=None, gt=0, description="width; null takes the size's")
    layers: int | None = Field(default=None, gt=0, description="blocks; null takes the size's")
    heads: int | None = Field(default=None, gt=0, description="attention heads; null takes the size's")
    ffn: int | None = Field(default=None, gt=0, description="feed-forward width; null takes the size's")
    adaln: bool = Field(default=True, description="condition every block through AdaLN-Zero")
    pseudo_tokens: int = Field(
        default=8, ge=0, description="positions before the text that hold the embedding; 0 is none"
    )
    rope: bool = Field(default=True, description="rotary positions; off: learned ones")
    qk_norm: bool = Field(default=True, description="RMS-normalised queries and keys")
    tied_head: bool = Field(default=True, description="the head shares its weights with the token embedding")
    trim_vocabulary: bool = Field(default=True, description="know only the tokens that occur in the training pairs")
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def resolve(self, vocab_size: int, embedding_dim: int, seq_len: int) -> "MDLMConfig":
        """Fills in the size's widths and the sizes that data decide."""
        chosen = self.model_dump(exclude={"size", "trim_vocabulary"})
        widths = {name: chosen.pop(name) or SIZES[self.size][name] for name in SIZES[self.size]}
        return MDLMConfig(vocab_size=vocab_size, embedding_dim=embedding_dim, seq_len=seq_len, **widths, **chosen)


class MDLMConfig(BaseModel):
    """A complete architecture, as a checkpoint keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(gt=0, description="V; ids 0..V-1 are predicted, id V is the mask")
    embedding_dim: int = Field(gt=0)
    seq_len: int = Field(gt=0)
    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    ffn: int = Field(gt=0)
    adaln: bool
    pseudo_tokens: int = Field(ge=0)
    rope: bool
    qk_norm: bool
    tied_head: bool
    dropout: float = Field(ge=0, lt=1)

    @property
    def mask_id(self) -> int:
        """The mask's id: one past the vocabulary, so that no head can predict it."""
        return self.vocab_size

    def model_post_init(self, context: object) -> None:
        if self.hidden % (2 * self.heads):
            raise ValueError(
                f"model.hidden ({self.hidden}) must be a multiple of 2 x model.heads ({self.heads}) for rotary pairs"
            )
