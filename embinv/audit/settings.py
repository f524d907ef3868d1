"""What a user may choose about a leakage report."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from embinv.data.records import LANGUAGES


class AuditSettings(BaseModel):
    """How recovered texts are looked at, and how much of them a report shows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_column: str | None = Field(default=None, description="the store's column that holds the original text")
    examples: int = Field(default=10, ge=0, description="texts that are shown, those given away most")
    reveal: bool = Field(default=False, description="whether they are shown in clear; else they are redacted")
    k: int = Field(default=5, ge=2, description="a word that fewer recovered texts hold is not shown")
    topics: int = Field(default=8, ge=1, description="groups that the texts are divided into, at most")
    seed: int = Field(default=0, ge=0, description="of the sample and the topics")
    languages: tuple[str, ...] = Field(
        default=LANGUAGES, min_length=1, description="languages of texts whose rows do not say theirs"
    )

    @field_validator("languages")
    @classmethod
    def _codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [code for code in languages if not (code.isalpha() and code.islower() and 2 <= len(code) <= 3)]
        if wrong:
            raise ValueError(f"languages holds {wrong[0]!r}; give codes such as en or de")
        return languages
