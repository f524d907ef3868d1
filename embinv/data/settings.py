"""Which texts, how they are cleaned, how long they are, and how they are divided: the `data` section of a config."""

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

LANG_PLACEHOLDER = "{lang}"


class TextSource(BaseModel):
    """Where texts come from: one path, and the language of all that lies there if it is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        min_length=1,
        description="file, folder, glob, s3://, gs:// or hf:// URI, or `records`; `{lang}` in it stands for each of "
        "data.languages in turn",
    )
    lang: str | None = Field(default=None, description="language of its texts; null: its `lang` column, if it has one")

    def expanded(self, languages: list[str]) -> "list[TextSource]":
        """One source for each language where the path holds `{lang}`, itself where it does not.

        Raises:
            ValueError: it holds `{lang}` and no language is named.
        """
        if LANG_PLACEHOLDER not in self.path:
            return [self]
        if not languages:
            raise ValueError(
                f"{self.path}: holds {LANG_PLACEHOLDER}, but data.languages names no language to put there"
            )
        return [TextSource(path=self.path.replace(LANG_PLACEHOLDER, lang), lang=lang) for lang in languages]


class DataSettings(BaseModel):
    """Which texts, how they are cleaned, how long they are, and how they are divided."""

    model_config = ConfigDict(extra="forbid")

    sources: list[TextSource] = Field(
        default=[TextSource(path="records")],
        min_length=1,
        description="where texts come from: a path, or {path, lang} (--texts)",
    )
    text_column: str = Field(default="text", description="column or JSON key that holds the text")
    languages: list[str] = Field(default=[], description="languages to keep; empty keeps all; unknown ones are kept")
    shares: dict[str, float] = Field(
        default={}, description="share of the rows for a language; those not named divide the rest equally"
    )
    rows: int | None = Field(default=None, gt=0, description="texts at most, shared by language (--rows)")
    min_chars: int = Field(default=20, ge=1)
    max_chars: int = Field(default=500, ge=1)
    near_duplicates: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="drop texts whose Jaccard similarity with a kept one is at least about this (MinHash), such as "
        "0.8; null keeps all but exact copies",
    )
    language_check: bool = Field(
        default=False, description="drop texts that py3langid reads as another language than their own"
    )
    max_rejected: float = Field(
        default=0.1, ge=0, le=1, description="share of input files that may be unreadable before a job fails"
    )
    seq_len: int = Field(default=32, ge=4, le=512, description="L: tokens the decoder writes, EOS included")
    min_tokens: int = Field(default=5, ge=1, description="texts with fewer tokens are dropped")
    tokenizer: str | None = Field(
        default=None, description="the decoder's tokenizer; null: model.backbone's, or the encoder's"
    )
    validation: float = Field(
        default=0.02, gt=0, lt=0.5, description="share of the texts held out to choose a checkpoint"
    )
    test: float = Field(default=0.02, gt=0, lt=0.5, description="share of the texts held out to measure it")
    correction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the texts that no inverter learns from, for a corrector to learn on, such as 0.3",
    )
    shard_rows: int = Field(
        default=2048, gt=0, description="rows in one file; a killed encode job does again about one file an encoder"
    )
    seed: int = Field(default=0, ge=0)

    @field_validator("sources", mode="before")
    @classmethod
    def _paths_are_sources(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        return [{"path": item} if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _in_order(self) -> "DataSettings":
        if self.min_chars > self.max_chars:
            raise ValueError(f"data.min_chars ({self.min_chars}) is above data.max_chars ({self.max_chars})")
        if self.min_tokens >= self.seq_len:
            raise ValueError(f"data.min_tokens ({self.min_tokens}) must be below data.seq_len ({self.seq_len})")
        bad = [lang for lang, share in self.shares.items() if not 0 < share <= 1]
        if bad or sum(self.shares.values()) > 1 + 1e-9:
            raise ValueError(f"data.shares: each must lie in (0, 1] and all sum to at most 1 (got {self.shares})")
        if self.validation + self.test + self.correction >= 1:
            raise ValueError("data.validation, data.test and data.correction leave no text to train on; lower one")
        unknown = sorted(set(self.shares) - set(self.languages))
        if self.languages and unknown:
            raise ValueError(f"data.shares names {', '.join(unknown)}, which data.languages does not keep")
        return self
