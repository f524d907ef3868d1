"""The HTTP face of the server: its paths, its middleware, and what every error is answered with.

An error is one sentence in `detail`. The order of what stands around the routes, from outside: the access log (every
request has a line and an id), security headers (on every answer), the metrics, CORS, the host's name.
"""

import logging
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

import embinv
from serve_app.access_log import AccessLog
from serve_app.admission import Admission, QueueFull
from serve_app.answers import EncoderUnavailable, UnknownEncoder
from serve_app.headers import SecurityHeaders
from serve_app.keys import KeyRing
from serve_app.measuring import GONE, Measure, Measures
from serve_app.page_files import page_routes
from serve_app.routes import Backend, Routes
from serve_app.schemas import (
    EncodeRequest,
    EncodeResponse,
    EncoderList,
    Health,
    InvertRequest,
    InvertResponse,
    Problem,
    Readiness,
)
from serve_app.settings import GatewayArgs

logger = logging.getLogger(__name__)

TITLE = "embinv"
REFERENCE = "#/components/schemas/{model}"
LOCAL_NAMES = ["localhost", "127.0.0.1", "[::1]", "::1"]
DESCRIPTION = "Recovers texts from their embedding vectors. Every error is one sentence in `detail`."
PROBLEMS: dict[int, str] = {
    401: "No key that is known; where keys are asked for.",
    404: "No encoder of that name, or no embedding model for it; the known ones are named.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    422: "The body is not what it should be; the sentence says what to send.",
    429: "Too much is under way; `Retry-After` says when to come again.",
    503: "The encoder cannot answer now; `Retry-After` says when to come again.",
}


def build_ingress(
    backend: Backend, settings: GatewayArgs, keys: KeyRing, measures: Measures, local_only: bool = False
) -> FastAPI:
    """The ASGI application.

    Args:
        backend: the encoders.
        settings: limits, log, CORS.
        keys: who may ask.
        measures: where requests are counted.
        local_only: answer only to a loopback name of this machine. A page of another site whose name was made to
            point here could ask otherwise (DNS rebinding).
    """
    admission = Admission(
        settings.max_queued_vectors, settings.max_wait_s, settings.min_queued_vectors, measures.queued
    )
    routes = Routes(backend, settings, admission, measures, keys)
    # Without redirects: POST to a path must not be answered with 307 to the same with a slash.
    api = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version=embinv.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.include_router(_open_routes(routes))
    api.include_router(_routes_behind_a_key(routes))
    api.include_router(page_routes())
    _answer_errors(api, measures)
    if local_only:
        api.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL_NAMES)
    if settings.cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    inside = api.build_middleware_stack

    def stack() -> ASGIApp:  # around Starlette's own answer to a fault too, which `add_middleware` is not
        measured = SecurityHeaders(Measure(inside(), measures))
        return AccessLog(measured, settings.access_log, settings.log_bodies)

    api.build_middleware_stack = stack
    api.openapi = lambda: _openapi(api, keys.required)
    return api


def _open_routes(routes: Routes) -> APIRouter:
    router = APIRouter(tags=["state"])
    router.get("/healthz", response_model=Health)(routes.healthz)
    readiness: dict[int | str, dict[str, Any]] = {
        200: {"model": Readiness},
        503: {"model": Readiness, "description": "An encoder is not ready."},
    }
    router.get("/readyz", responses=readiness)(routes.readyz)
    return router


def _routes_behind_a_key(routes: Routes) -> APIRouter:
    router = APIRouter(dependencies=[Depends(routes.authenticate)], tags=["inversion"])
    router.get("/encoders", response_model=EncoderList, responses=_problems(401))(routes.encoders)
    every = _problems(*PROBLEMS)
    for path in ("/invert/{encoder}", "/invert/{encoder}/"):
        shown = not path.endswith("/")
        router.post(
            path,
            response_model=InvertResponse,
            responses=every,
            openapi_extra=_body(InvertRequest),
            include_in_schema=shown,
        )(routes.invert)
    events = {
        "description": "Events `pass`, `correction` where `refine` is an object, then `result`; or `error`.",
        "content": {"text/event-stream": {}},
    }
    router.post(
        "/invert/{encoder}/stream",
        response_class=Response,
        responses={**every, 200: events},
        openapi_extra=_body(InvertRequest),
    )(routes.stream)
    router.post(
        "/encode/{encoder}", response_model=EncodeResponse, responses=every, openapi_extra=_body(EncodeRequest)
    )(routes.encode)
    return router


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses}


def _body(kind: type[InvertRequest] | type[EncodeRequest]) -> dict[str, Any]:
    """The body of a route for the API's own documentation; the body itself is parsed by `parse_request`."""
    schema = kind.model_json_schema(ref_template=REFERENCE)
    schema.pop("$defs", None)  # they are among the document's own
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _openapi(api: FastAPI, key_required: bool) -> dict[str, Any]:
    if api.openapi_schema is None:
        document = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
        for kind in (InvertRequest, EncodeRequest):
            document["components"]["schemas"] |= kind.model_json_schema(ref_template=REFERENCE).get("$defs", {})
        if key_required:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, methods in document["paths"].items():
                if path not in {"/healthz", "/readyz"}:
                    for operation in methods.values():
                        operation["security"] = [{"key": []}]
        api.openapi_schema = document
    return api.openapi_schema


def _answer_errors(api: FastAPI, measures: Measures) -> None:
    """Turns every exception into a status and a sentence."""

    @api.exception_handler(UnknownEncoder)
    async def unknown(request: Request, error: UnknownEncoder) -> JSONResponse:
        return _problem(404, str(error))

    @api.exception_handler(EncoderUnavailable)
    async def unavailable(request: Request, error: EncoderUnavailable) -> JSONResponse:
        measures.rejected(_encoder(request), "unavailable")
        return _problem(503, str(error), {"Retry-After": str(error.retry_after_s)})

    @api.exception_handler(QueueFull)
    async def full(request: Request, error: QueueFull) -> JSONResponse:
        measures.rejected(_encoder(request), "queue")
        return _problem(429, str(error), {"Retry-After": str(error.retry_after_s)})

    @api.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=GONE)  # nobody reads it

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        detail = error.detail
        if detail in {"Not Found", "Method Not Allowed"}:  # Starlette's own words
            detail = f"{detail.lower()}; /docs lists what there is"
        return _problem(error.status_code, detail, dict(error.headers or {}))

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _problem(422, f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}")

    @api.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        request_id = getattr(request.state, "request_id", "")
        logger.error("request %s failed", request_id, exc_info=error)
        return _problem(500, f"the server failed; its log says why, under request {request_id}")


def _encoder(request: Request) -> str:
    return request.path_params.get("encoder", "")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)
