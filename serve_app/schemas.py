"""What the server takes and gives, and the sentence that a wrong body is answered with.

A request is parsed from its raw bytes in one pass, so that NaN, a cut body or a key of a wrong name all end in the
same kind of answer: what is wrong, and what to send. No Ray and no model here; vectors.py makes arrays of vectors.
"""

import difflib
import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from embinv.decoding.options import STRATEGY_NAMES, Choices, DecodingOptions, Strategy

USUAL_STEPS, MAX_STEPS = 8, 512
MAX_CANDIDATES = 64
MAX_BEAMS = 16
MAX_REFINE_STEPS = 20
MAX_REFINE_BEAM = 8
MAX_SEED = 2**63 - 1
MAX_TEXTS = 256
MAX_TEXT_CHARS = 20_000
SHOWN_CHARS = 40  # of a value that an error quotes


def _form(value: Any) -> str:
    return "base64" if isinstance(value, str) else "numbers"


Numbers = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(fail_fast=True), Tag("numbers")]
Vector = Annotated[Numbers | Annotated[str, Tag("base64")], Discriminator(_form)]


class Refinement(BaseModel):
    """Texts are corrected and encoded again and again, and the closest is taken (`embinv.decoding.refine`)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    steps: int = Field(
        default=5,
        ge=0,
        le=MAX_REFINE_STEPS,
        description="corrections at most; 0 takes the closest of the first texts, and says how close it is",
    )
    beam: int = Field(
        default=4, ge=1, le=MAX_REFINE_BEAM, description="texts that are held, and proposals for each of them"
    )

    @property
    def proposals(self) -> int:
        """Texts that are written and encoded for one vector at most, beside its first ones."""
        return self.steps * self.beam**2


def _way(value: Any) -> str:
    return "loop" if isinstance(value, dict | Refinement) else "choice"


Refine = Annotated[Annotated[bool, Tag("choice")] | Annotated[Refinement, Tag("loop")], Discriminator(_way)]


class InvertRequest(BaseModel):
    """The body of `POST /invert/<encoder>`: one vector or several, and how to decode them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    embedding: Vector | None = Field(
        default=None,
        description="one vector of this encoder, at any scale: a list of numbers, or base64 of little-endian float32",
    )
    embeddings: Annotated[list[Vector], Field(fail_fast=True)] | None = Field(
        default=None, description="several of them"
    )
    strategy: Strategy | None = Field(
        default=None, description="one of the encoder's strategies (GET /encoders); null: its first"
    )
    steps: int = Field(
        default=USUAL_STEPS,
        ge=1,
        le=MAX_STEPS,
        description="denoising passes; of `confidence` and `sequential` the text's length is the most that help, and "
        "`greedy` and `beam` make one for each token, whatever is said here",
    )
    candidates: int | None = Field(
        default=None, ge=1, le=MAX_CANDIDATES, description="samples of each vector, of strategy `candidates`; 4 if null"
    )
    beams: int | None = Field(
        default=None, ge=1, le=MAX_BEAMS, description="beginnings that strategy `beam` keeps at each token; 4 if null"
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="for decoders that sample")
    refine: Refine = Field(
        default=False,
        description="asks the encoder, where one is served. true: of the candidates take the one whose own vector is "
        "closest. An object, with any strategy: correct the text, or the candidates, and take what is closest",
    )

    @model_validator(mode="after")
    def _one_form(self) -> "InvertRequest":
        if (self.embedding is None) == (self.embeddings is None):
            given = "neither" if self.embedding is None else "both"
            raise ValueError(f"the body holds {given} of 'embedding' and 'embeddings'")
        return self

    def choices(self, strategies: list[str]) -> Choices:
        """How to decode.

        Args:
            strategies: the encoder's, the usual one first.

        Raises:
            ValueError: another strategy, or a key that the strategy has no use for.
        """
        strategy = self.strategy or strategies[0]
        if strategy not in strategies:
            raise ValueError(f"strategy {strategy} is none of this encoder's; send one of {', '.join(strategies)}")
        for name, given, owner in (
            ("candidates", self.candidates is not None, "candidates"),
            ("refine true", self.refine is True, "candidates"),
            ("beams", self.beams is not None, "beam"),
        ):
            if given and strategy != owner:
                instead = f"send strategy {owner!r}" if owner in strategies else "leave it out"
                raise ValueError(f"{name} does nothing for strategy {strategy}; {instead}")
        given = {name: getattr(self, name) for name in ("candidates", "beams")}
        options = DecodingOptions(**{name: value for name, value in given.items() if value is not None})
        return Choices(strategy, self.steps, self.seed, options)


class EncodeRequest(BaseModel):
    """The body of `POST /encode/<encoder>`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = Field(default=None, description="one text")
    texts: Annotated[list[Annotated[str, Field(max_length=MAX_TEXT_CHARS)]], Field(max_length=MAX_TEXTS)] | None = (
        Field(default=None, description="several of them")
    )
    encoding_format: Annotated[str, Field(pattern="^(float|base64)$")] = Field(
        default="float", description="lists of numbers, or base64 of little-endian float32"
    )

    @model_validator(mode="after")
    def _one_form(self) -> "EncodeRequest":
        if (self.text is None) == (self.texts is None):
            raise ValueError(f"the body holds {'neither' if self.text is None else 'both'} of 'text' and 'texts'")
        if not self.all or not all(text.strip() for text in self.all):
            raise ValueError("a text is empty, or there is none")
        return self

    @property
    def all(self) -> list[str]:
        """The texts, however they were given."""
        return [self.text] if self.text is not None else list(self.texts or [])


class RecoveredToken(BaseModel):
    """One token of a recovered text."""

    id: int
    token: str = Field(description="as the decoder's tokenizer writes it alone")
    confidence: float = Field(description="the model's probability of it when it was chosen")
    probability: float | None = Field(
        default=None, description="that it is right; null if this way of decoding was not calibrated"
    )


class RecoveredText(BaseModel):
    """What was recovered from one vector."""

    text: str
    confidence: float = Field(description="geometric mean over the tokens, the end of the text included")
    probability: float | None = Field(
        default=None,
        description="that at least 90% of it is right; null if this way of decoding was not calibrated, or `refine` is "
        "an object",
    )
    cosine: float | None = Field(default=None, description="with `refine`: between the vector and the text's own")
    encoder_calls: int | None = Field(
        default=None, description="where `refine` is an object: texts that the encoder embedded for this vector"
    )
    steps: int = Field(description="passes in which this text changed, before it was refined")
    tokens: list[RecoveredToken]


class InvertResponse(BaseModel):
    """The answer, results in the order of the vectors."""

    model: str = Field(description="name of the checkpoint")
    version: str = Field(description="start of the SHA-256 of its weights")
    encoder: str = Field(description="the embedding model whose vectors it inverts")
    results: list[RecoveredText]
    milliseconds: float = Field(description="from the parsed request to the results, waiting included")
    model_milliseconds: float = Field(description="of these in the model, with the other vectors of its batches")


class ShownToken(BaseModel):
    """One place of a text on its way."""

    text: str | None = Field(description="what it writes; null where still hidden")
    confidence: float | None


class PassEvent(BaseModel):
    """An event of `POST /invert/<encoder>/stream`: one text after one pass."""

    index: int = Field(description="which of the request's vectors")
    step: int
    tokens: list[ShownToken] = Field(description="up to the end of the text, as far as that is known")


class CorrectionEvent(BaseModel):
    """Another: the closest text of one vector so far, where `refine` is an object."""

    index: int = Field(description="which of the request's vectors")
    step: int = Field(description="corrections so far; 0 for the first texts")
    text: str
    cosine: float | None = Field(description="between the vector and the text's own")
    encoder_calls: int = Field(description="texts that were embedded for this vector so far")
    tokens: list[ShownToken]


class EncodeResponse(BaseModel):
    """The answer of `POST /encode/<encoder>`."""

    model: str
    encoder: str
    embeddings: list[list[float] | str]
    milliseconds: float


class Description(BaseModel):
    """What an inverter is, in the words of its checkpoint."""

    encoder: str = Field(description="the embedding model whose vectors it inverts")
    dim: int = Field(description="numbers in a vector")
    seq_len: int = Field(description="L, the tokens that are decoded, the end of the text included")
    max_tokens: int = Field(description="the longest text")
    languages: list[str] = Field(
        description="of the texts that it was trained on; empty if the checkpoint does not say"
    )
    strategies: list[str]
    version: str = Field(description="start of the SHA-256 of the weights")
    figures: dict[str, Any] = Field(description="of the model card: how it was trained, what validation measured")
    encode: bool = Field(description="whether POST /encode/<encoder> answers")


class EncoderEntry(BaseModel):
    """One encoder of `GET /encoders`; what is not known before it runs is null."""

    name: str
    status: str = Field(description="of its Serve application, such as RUNNING")
    encoder: str | None = None
    dim: int | None = None
    seq_len: int | None = None
    max_tokens: int | None = None
    languages: list[str] = []
    strategies: list[str] = []
    version: str | None = None
    figures: dict[str, Any] = {}
    encode: bool = False
    defaults: dict[str, Any] = {}
    limits: dict[str, int] = {}


class EncoderList(BaseModel):
    """The answer of `GET /encoders`."""

    encoders: list[EncoderEntry]
    key_required: bool


class Health(BaseModel):
    """The answer of `GET /healthz`."""

    status: str = "ok"


class Readiness(BaseModel):
    """The answer of `GET /readyz`."""

    status: str = Field(description="ready once every encoder answers")
    encoders: dict[str, str] = Field(description="name -> status of its Serve application")


class Problem(BaseModel):
    """Every error: one sentence."""

    detail: str


RequestT = TypeVar("RequestT", InvertRequest, EncodeRequest)


def parse_request(kind: type[RequestT], body: bytes, dim: int) -> RequestT:
    """Reads a request's body.

    Args:
        kind: what it should be.
        body: the bytes as they came, whatever the content type says.
        dim: D of the encoder, for the message.

    Raises:
        ValueError: one sentence that says what is wrong and what to send.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        problem = _explain(kind, body, error.errors(include_url=False, include_context=False), dim)
        raise ValueError(problem) from error


def forms(dim: int) -> dict[str, str]:
    """What each key takes."""
    vector = f"{dim} finite numbers, or base64 of {dim} little-endian float32"
    return {
        "embedding": f"a list of {vector}",
        "embeddings": f"a list of vectors, each a list of {vector}",
        "strategy": f"one of {', '.join(STRATEGY_NAMES)}",
        "steps": f"a whole number from 1 to {MAX_STEPS}",
        "candidates": f"a whole number from 1 to {MAX_CANDIDATES}",
        "beams": f"a whole number from 1 to {MAX_BEAMS}",
        "seed": f"a whole number from 0 to {MAX_SEED}",
        "refine": "true, false, or an object of steps and beam",
        "refine.steps": f"a whole number from 0 to {MAX_REFINE_STEPS}",
        "refine.beam": f"a whole number from 1 to {MAX_REFINE_BEAM}",
        "text": f"a text of at most {MAX_TEXT_CHARS:,} characters",
        "texts": f"a list of at most {MAX_TEXTS} texts, each of at most {MAX_TEXT_CHARS:,} characters",
        "encoding_format": "'float' or 'base64'",
    }


def body_form(kind: type[BaseModel], dim: int) -> str:
    """A body that is right."""
    if kind is InvertRequest:
        return f'{{"embedding": [{dim} numbers]}} or {{"embeddings": [[{dim} numbers], ...]}}'
    return '{"text": "..."} or {"texts": ["...", ...]}'


def _explain(kind: type[BaseModel], body: bytes, details: list[ErrorDetails], dim: int) -> str:
    """One sentence for the first problem; an unknown key comes first, since it often causes the others."""
    unknown = [detail for detail in details if detail["type"] == "extra_forbidden"]
    detail = (unknown or details)[0]
    send = f"send {body_form(kind, dim)}"
    if unknown:
        return _unknown_key(kind, detail["loc"])
    if not body.strip():
        return f"the body is empty; {send} as JSON"
    if detail["type"] == "json_invalid":
        return f"the body is not JSON ({detail['msg'].removeprefix('Invalid JSON: ')}); {send}"
    if not detail["loc"]:
        problem = detail["msg"].removeprefix("Value error, ")
        problem = "the body is not a JSON object" if detail["type"] == "model_type" else problem
        return f"{problem}; {send}"
    place = _place(detail["loc"])
    form = forms(dim)[place.partition("[")[0]]
    if detail["type"] in {"string_too_long", "too_long"}:
        return f"{place} is too long; send {form}"
    return f"{place} is {_shown(detail['input'])}; send {form}"


def _unknown_key(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    inside = len(location) > 1  # only `refine` holds keys of its own
    key, known = str(location[-1]), list((Refinement if inside else kind).model_fields)
    nearest = difflib.get_close_matches(key[:SHOWN_CHARS], known, n=1, cutoff=0.0)[0]
    where = f" in {location[0]}" if inside else ""
    return f"unknown key {_shown(key)}{where}; send {nearest!r} instead (the keys are {', '.join(known)})"


def _place(location: tuple[int | str, ...]) -> str:
    """`embeddings[1][2]`, `refine.steps`: where a value stands, without the tags of its forms."""
    place = str(location[0])
    for part in location[1:]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part in Refinement.model_fields:
            place += f".{part}"
    return place


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
