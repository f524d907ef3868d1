"""The HTTP face of one inverter: the routes under `/invert/<encoder>` and their errors.

A body that cannot be inverted is answered with 422 and one sentence in `detail`. No batching and no model here: the
routes speak to a `ServedInverter`, so that they can be tested without Ray.
"""

import time
from typing import Annotated, Protocol

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request

from serve_app.schemas import Health, InvertRequest, InvertResponse, RecoveredText, parse_request


class ServedInverter(Protocol):
    """A loaded checkpoint that can be asked by many at once."""

    model: str
    encoder: str
    dim: int

    async def invert(self, vectors: np.ndarray, strategy: str, steps: int, seed: int) -> list[RecoveredText]:
        """Returns one text for each row of vectors [N, D]."""
        ...


Parsed = tuple[InvertRequest, np.ndarray]


def build_ingress(inverter: ServedInverter) -> FastAPI:
    """Returns the ASGI application of one inverter."""
    # Without redirects: POST to /invert/x must not be answered with 307 to /invert/x/.
    api = FastAPI(title=f"embinv: {inverter.model}", redirect_slashes=False)

    async def parsed(request: Request) -> Parsed:
        body = await request.body()
        try:
            asked = parse_request(body, inverter.dim)
            return asked, asked.vectors(inverter.dim)
        except ValueError as error:
            raise HTTPException(status_code=422, detail=str(error)) from error

    async def invert(parsed: Annotated[Parsed, Depends(parsed)]) -> InvertResponse:
        """Recovers the text behind each vector."""
        asked, vectors = parsed
        start = time.perf_counter()
        results = await inverter.invert(vectors, asked.strategy, asked.steps, asked.seed)
        milliseconds = round((time.perf_counter() - start) * 1000, 2)
        return InvertResponse(
            model=inverter.model, encoder=inverter.encoder, results=results, milliseconds=milliseconds
        )

    async def healthz() -> Health:
        """Answers once the checkpoint is loaded and warm."""
        return Health(model=inverter.model, encoder=inverter.encoder, dim=inverter.dim)

    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": request_schema()}}}}
    api.post("", openapi_extra=body)(invert)
    api.post("/", include_in_schema=False)(invert)
    api.get("/healthz")(healthz)
    return api


def request_schema() -> dict[str, object]:
    """JSON schema of the body, for the API's own documentation; the body itself is parsed by `parse_request`."""
    return InvertRequest.model_json_schema()
