"""`args` of the gateway in the Serve YAML."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GatewayArgs(BaseModel):
    """What the door lets in, whom, and what it writes down."""

    model_config = ConfigDict(extra="forbid")

    keys_file: str | None = Field(
        default=None,
        min_length=1,
        description="lines `name sha256-of-key` (python -m serve_app.keys); read again when it changes. More keys can "
        "stand in EMBINV_API_KEYS. Without either everybody may ask",
    )
    insecure: bool = Field(default=False, description="listen on another address than loopback without keys")
    cors_origins: list[str] = Field(default=[], description="origins whose pages may ask; none by default")
    access_log: str | None = Field(default="-", description="JSON lines: a path, - for standard error, null for none")
    log_bodies: bool = Field(default=False, description="bodies, and so vectors and texts, in the access log")
    max_body_bytes: int = Field(default=16 * 2**20, gt=0)
    max_vectors: int = Field(
        default=256,
        gt=0,
        description="texts that one request may ask for, candidates counted, and with them proposals of `refine`",
    )
    max_queued_vectors: int = Field(
        default=512, gt=0, description="of one encoder, under way or waiting here; what is more is answered with 429"
    )
    max_wait_s: float = Field(
        default=5.0,
        gt=0,
        description="that what waits may take, at the rate of late; what comes then is answered with 429",
    )
    min_queued_vectors: int = Field(
        default=32, ge=0, description="let in however long they may take, so that a slow model has whole batches"
    )
    request_timeout_s: float = Field(default=60.0, gt=0, description="then 503; longer than a model takes to load")
    body_timeout_s: float = Field(default=20.0, gt=0, description="to send a whole body in; then 408")
    replicas: int = Field(default=1, gt=0, description="of the gateway; queues are counted in each")
    on_head: bool = Field(
        default=True,
        description="run on the head node, where Serve's controller is, whose loss ends the service anyway; false: on "
        "any node, and then the loss of that node ends the requests that are under way in it",
    )

    @model_validator(mode="after")
    def _room_for_one(self) -> "GatewayArgs":
        if self.max_queued_vectors < self.max_vectors:
            raise ValueError(
                f"max_queued_vectors is {self.max_queued_vectors}, below max_vectors, {self.max_vectors}: the largest "
                "request could never be answered; raise it"
            )
        return self
