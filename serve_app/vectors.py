"""The vectors of a request as an array, whether they came as numbers or as base64, and back."""

import base64
import binascii

import numpy as np

from embinv.data.vectors import check_embeddings
from serve_app.schemas import InvertRequest

FLOAT32 = np.dtype("<f4")


def vectors_of(request: InvertRequest, dim: int, most: int) -> np.ndarray:
    """The vectors of a request, [N, D] float32.

    Args:
        request: what was asked.
        dim: D of the encoder.
        most: N at most.

    Raises:
        ValueError: none, too many, one of another length, or one that cannot be inverted; it says what to send.
    """
    if request.embedding is not None:
        name, rows, places = "embedding", [request.embedding], ["embedding"]
    else:
        rows = request.embeddings or []
        name, places = "embeddings", [f"embeddings[{row}]" for row in range(len(rows))]
    if not rows:
        raise ValueError(f"embeddings is empty; send at least one vector of {dim} numbers")
    if len(rows) > most:
        raise ValueError(f"embeddings holds {len(rows)} vectors; send at most {most} in one request")
    matrix = np.empty((len(rows), dim), dtype=np.float32)
    for row, (given, place) in enumerate(zip(rows, places, strict=True)):
        numbers = _from_base64(given, place, dim) if isinstance(given, str) else given
        if len(numbers) != dim:
            raise ValueError(
                f"{place} has {len(numbers)} dimensions, but this inverter takes {dim}; "
                f"send vectors of the encoder that it was trained for, {dim} numbers each"
            )
        with np.errstate(over="ignore"):  # what does not fit float32 is named by the check
            matrix[row] = np.asarray(numbers, dtype=np.float64).astype(np.float32)
    return check_embeddings(matrix, dim, name)


def _from_base64(text: str, place: str, dim: int) -> np.ndarray:
    wanted = f"send {dim} little-endian float32 ({dim * 4} bytes) as base64, or a list of {dim} numbers"
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{place} is text, but not base64; {wanted}") from error
    if len(data) % 4:
        raise ValueError(f"{place} is base64 of {len(data)} bytes, no whole number of float32; {wanted}")
    return np.frombuffer(data, dtype=FLOAT32)


def to_base64(vector: np.ndarray) -> str:
    """A vector [D] as base64 of little-endian float32."""
    return base64.b64encode(vector.astype(FLOAT32).tobytes()).decode()
