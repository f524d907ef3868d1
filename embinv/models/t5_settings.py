"""The complete architecture of a T5 inverter, as a checkpoint keeps it. Without torch."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from embinv.models.settings import PSEUDO_TOKENS, SIZES, ModelSettings

LAYERS = {"tiny": 2, "small": 4, "base": 12, "large": 24}
"""Of the encoder, and as many of the decoder: base and large are as deep as the published T5 of those names."""


class T5Shape(BaseModel):
    """What a T5 says about its layers, under transformers' names; the defaults are those of every published T5."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    d_model: int = Field(gt=0)
    d_kv: int = Field(gt=0)
    d_ff: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_decoder_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    relative_attention_num_buckets: int = Field(default=32, gt=0)
    relative_attention_max_distance: int = Field(default=128, gt=0)
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"
    layer_norm_epsilon: float = 1e-6


class T5InverterConfig(BaseModel):
    """The architecture of an inverter of the vec2text family (Morris et al., 2023, section 4)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    family: ClassVar[Literal["t5", "t5_corrector"]] = "t5"

    vocab_size: int = Field(gt=0, description="V; ids 0..V-1 are written")
    rows: int = Field(gt=0, description="of the token embedding: V, or more where it was rounded up")
    embedding_dim: int = Field(gt=0, description="D")
    seq_len: int = Field(gt=0, description="L, the end of the text included")
    pseudo_tokens: int = Field(gt=0, description="R, positions that the encoder reads the vector at")
    dropout: float = Field(ge=0, lt=1)
    start_id: int = Field(ge=0, description="what the decoder reads first")
    eos_id: int = Field(ge=0)
    pad_id: int = Field(ge=0)
    unit_rms: bool = Field(description="scale vectors to unit root mean square; off: as the encoder gives them")
    tied_head: bool = Field(description="the head shares its weights with the token embedding")
    transformer: T5Shape

    @model_validator(mode="after")
    def _holds_all_ids(self) -> "T5InverterConfig":
        if max(self.vocab_size - 1, self.start_id, self.eos_id, self.pad_id) >= self.rows:
            raise ValueError(f"model.rows ({self.rows}) is too few for ids up to {self.vocab_size - 1}")
        return self

    @property
    def mask_id(self) -> int:
        """Stands for a token that is not known yet; no row of the token embedding, since it is never read."""
        return self.vocab_size

    @property
    def hidden(self) -> int:
        """H."""
        return self.transformer.d_model

    @property
    def layers(self) -> int:
        """Blocks of encoder and decoder."""
        return self.transformer.num_layers + self.transformer.num_decoder_layers


class T5CorrectorConfig(T5InverterConfig):
    """The architecture of a corrector of that family: R pseudo-tokens of each of three vectors, and a hypothesis."""

    family: ClassVar = "t5_corrector"

    corrects: Literal[True] = True


def complete(
    settings: ModelSettings, vocab_size: int, embedding_dim: int, seq_len: int, ends: tuple[int, int]
) -> T5InverterConfig:
    """Fills in the size's widths and the sizes that data decide; of a T5 from scratch.

    Args:
        settings: a config's `model` section.
        vocab_size: V.
        embedding_dim: D.
        seq_len: L.
        ends: the model's ids of EOS and PAD; a T5 begins a text with PAD.
    """
    assert settings.family == "t5" and settings.backbone is None, "what a backbone decides is read from its files"
    widths = {name: getattr(settings, name) or width for name, width in SIZES[settings.size].items()}
    layers = settings.layers or LAYERS[settings.size]
    if widths["hidden"] % widths["heads"]:
        raise ValueError(
            f"model.hidden ({widths['hidden']}) must be a multiple of model.heads ({widths['heads']}), which share it"
        )
    shape = T5Shape(
        d_model=widths["hidden"],
        d_kv=widths["hidden"] // widths["heads"],
        d_ff=widths["ffn"],
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=widths["heads"],
    )
    return around(shape, settings, vocab_size, vocab_size, embedding_dim, seq_len, ends, settings.tied_head)


def around(
    shape: T5Shape,
    settings: ModelSettings,
    vocab_size: int,
    rows: int,
    embedding_dim: int,
    seq_len: int,
    ends: tuple[int, int],
    tied_head: bool,
) -> T5InverterConfig:
    """The architecture of an inverter or corrector around a T5 of this shape; see `complete` for the rest."""
    kind = T5CorrectorConfig if settings.corrector else T5InverterConfig
    return kind(
        vocab_size=vocab_size,
        rows=rows,
        embedding_dim=embedding_dim,
        seq_len=seq_len,
        pseudo_tokens=settings.pseudo_tokens or PSEUDO_TOKENS["t5"],
        dropout=settings.dropout,
        start_id=ends[1],
        eos_id=ends[0],
        pad_id=ends[1],
        unit_rms=settings.unit_rms,
        tied_head=tied_head,
        transformer=shape,
    )
