"""What passes between the gateway and the encoders, and how an answer is written. No Ray here.

Results come as JSON from the replica that made them; here they are only put together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.schemas import Description

STARTING_S = 5  # to come again, while an encoder starts
SHOWN_CHARS = 40  # of a name that an error quotes


@dataclass(frozen=True)
class Answer:
    """The texts of a call.

    Attributes:
        results: JSON of a `RecoveredText` for each vector.
        version: of the weights that wrote them.
        model_s: seconds in the model, with the other vectors of the batches.
    """

    results: list[bytes]
    version: str
    model_s: float


@dataclass(frozen=True)
class Seen:
    """One vector after one pass, or one correction.

    Attributes:
        row: which vector of the call.
        step: passes and corrections of it so far.
        event: JSON of a `PassEvent` or a `CorrectionEvent`.
        name: `pass` or `correction`.
    """

    row: int
    step: int
    event: bytes
    name: str = "pass"


@dataclass
class Served:
    """What is known of one encoder.

    Attributes:
        status: of its application, such as RUNNING.
        deployed: when it was deployed, a Unix time.
        replicas: whether some that were there before may answer, though its last deployment failed.
        description: of its checkpoint; null until one replica has answered.
        described: the deployment that the description is of.
    """

    status: str
    deployed: float
    description: Description | None = None
    described: float = -1.0
    replicas: bool = False


class UnknownEncoder(Exception):
    """No encoder of that name is served.

    Args:
        name: the name.
        known: those that are.
    """

    def __init__(self, name: str, known: list[str]) -> None:
        shown = name if len(name) <= SHOWN_CHARS else name[:SHOWN_CHARS] + "..."
        there = f"served are {', '.join(known)}" if known else "none is served yet"
        super().__init__(f"there is no encoder {shown!r}; {there}")


class EncoderUnavailable(Exception):
    """An encoder cannot answer now.

    Args:
        why: one sentence.
        retry_after_s: when it may.
    """

    def __init__(self, why: str, retry_after_s: int = STARTING_S) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


def answer_json(name: str, encoder: str, answers: Sequence[Answer], seconds: float) -> bytes:
    """JSON of an `InvertResponse`.

    Args:
        name: of the encoder.
        encoder: its embedding model.
        answers: of the parts of a request, in order.
        seconds: that all of it took.
    """
    version = "+".join(dict.fromkeys(answer.version for answer in answers))  # two, while another is deployed
    head = {"model": name, "version": version, "encoder": encoder}
    times = {
        "milliseconds": round(seconds * 1000, 2),
        "model_milliseconds": round(max(answer.model_s for answer in answers) * 1000, 2),
    }
    results = b",".join(result for answer in answers for result in answer.results)
    return b"".join(
        (
            json.dumps(head, ensure_ascii=False).encode()[:-1],
            b', "results": [',
            results,
            b"], ",
            json.dumps(times).encode()[1:],
        )
    )


def server_sent(event: str, data: bytes | Mapping[str, Any]) -> bytes:
    """A server-sent event; JSON holds no line break."""
    text = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return b"event: " + event.encode() + b"\ndata: " + text + b"\n\n"
