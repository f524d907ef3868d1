"""What `POST /invert/<encoder>` takes and gives, and the sentence that a wrong body is answered with.

A request is parsed from its raw bytes in one pass, so that NaN, a cut body or a key of a wrong name all end in the
same kind of answer: what is wrong, and what to send. No Ray and no model here.
"""

import difflib
import json
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from embinv.data.vectors import check_embeddings
from embinv.decoding.strategies import STRATEGIES

MAX_STEPS = 512
MAX_SEED = 2**63 - 1
SHOWN_CHARS = 40  # of a value that an error quotes


def _known_strategy(name: str) -> str:
    if name not in STRATEGIES:
        raise ValueError("unknown strategy")
    return name


Vector = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(fail_fast=True)]
Strategy = Annotated[str, AfterValidator(_known_strategy), Field(json_schema_extra={"enum": list(STRATEGIES)})]


class InvertRequest(BaseModel):
    """The body of a request: one vector or several, and how to decode them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    embedding: Vector | None = Field(default=None, description="one vector of this encoder, at any scale")
    embeddings: Annotated[list[Vector], Field(fail_fast=True)] | None = Field(
        default=None, description="several of them"
    )
    steps: int = Field(
        default=8, ge=1, le=MAX_STEPS, description="denoising passes; the text's length is the most that help"
    )
    strategy: Strategy = Field(default="confidence", description="the decoder")
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="for decoders that sample")

    @model_validator(mode="after")
    def _one_form(self) -> "InvertRequest":
        if (self.embedding is None) == (self.embeddings is None):
            given = "neither" if self.embedding is None else "both"
            raise ValueError(f"the body holds {given} of 'embedding' and 'embeddings'")
        return self

    def vectors(self, dim: int) -> np.ndarray:
        """Returns the vectors, [N, D] float32.

        Args:
            dim: D of the encoder.

        Raises:
            ValueError: a vector of another length, or one that cannot be inverted; the message says what to send.
        """
        if self.embedding is not None:
            name, rows, places = "embedding", [self.embedding], ["embedding"]
        else:
            rows = self.embeddings or []
            name, places = "embeddings", [f"embeddings[{row}]" for row in range(len(rows))]
        if not rows:
            raise ValueError(f"embeddings is empty; send {_forms(dim)['embeddings']}, at least one")
        for row, place in zip(rows, places, strict=True):
            if len(row) != dim:
                raise ValueError(
                    f"{place} has {len(row)} dimensions, but this inverter takes {dim}; "
                    f"send vectors of the encoder that it was trained for, {dim} numbers each"
                )
        with np.errstate(over="ignore"):  # what does not fit float32 is named by the check
            matrix = np.asarray(rows, dtype=np.float64).astype(np.float32)
        return check_embeddings(matrix, dim, name)


class RecoveredToken(BaseModel):
    """One token of a recovered text."""

    id: int
    token: str = Field(description="as the decoder's tokenizer writes it alone")
    confidence: float = Field(description="the model's probability of it when it was chosen")


class RecoveredText(BaseModel):
    """What was recovered from one vector."""

    text: str
    confidence: float = Field(description="geometric mean over the tokens, the end of the text included")
    tokens: list[RecoveredToken]


class InvertResponse(BaseModel):
    """The answer, results in the order of the vectors."""

    model: str = Field(description="name of the checkpoint")
    encoder: str = Field(description="the embedding model whose vectors it inverts")
    results: list[RecoveredText]
    milliseconds: float = Field(description="from the parsed request to the results, waiting for a batch included")


class Health(BaseModel):
    """The answer of `GET /invert/<encoder>/healthz`: what is loaded."""

    status: str = "ok"
    model: str
    encoder: str
    dim: int


def parse_request(body: bytes, dim: int) -> InvertRequest:
    """Reads a request's body.

    Args:
        body: the bytes as they came, whatever the content type says.
        dim: D of the encoder, for the message.

    Raises:
        ValueError: one sentence that says what is wrong and what to send.
    """
    try:
        return InvertRequest.model_validate_json(body)
    except ValidationError as error:
        problem = _explain(body, error.errors(include_url=False, include_context=False), dim)
        raise ValueError(problem) from error


def _forms(dim: int) -> dict[str, str]:
    """What each key takes."""
    return {
        "embedding": f"a list of {dim} finite numbers",
        "embeddings": f"a list of vectors, each a list of {dim} finite numbers",
        "steps": f"a whole number from 1 to {MAX_STEPS}",
        "strategy": f"one of {', '.join(STRATEGIES)}",
        "seed": f"a whole number from 0 to {MAX_SEED}",
    }


def _explain(body: bytes, details: list[ErrorDetails], dim: int) -> str:
    """One sentence for the first problem; an unknown key comes first, since it often causes the others."""
    unknown = [detail for detail in details if detail["type"] == "extra_forbidden"]
    detail = (unknown or details)[0]
    body_form = f'{{"embedding": [{dim} numbers]}} or {{"embeddings": [[{dim} numbers], ...]}}'
    if unknown:
        return _unknown_key(str(detail["loc"][0]))
    if not body.strip():
        return f"the body is empty; send {body_form} as JSON"
    if detail["type"] == "json_invalid":
        return f"the body is not JSON ({detail['msg'].removeprefix('Invalid JSON: ')}); send {body_form}"
    if not detail["loc"]:
        problem = detail["msg"].removeprefix("Value error, ")
        problem = "the body is not a JSON object" if detail["type"] == "model_type" else problem
        return f"{problem}; send {body_form}"
    place = _place(detail["loc"])
    return f"{place} is {_shown(detail['input'])}; send {_forms(dim)[str(detail['loc'][0])]}"


def _unknown_key(key: str) -> str:
    known = list(InvertRequest.model_fields)
    nearest = difflib.get_close_matches(key[:SHOWN_CHARS], known, n=1, cutoff=0.0)[0]
    return f"unknown key {_shown(key)}; send {nearest!r} instead (the keys are {', '.join(known)})"


def _place(location: tuple[int | str, ...]) -> str:
    return str(location[0]) + "".join(f"[{part}]" for part in location[1:] if isinstance(part, int))


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
