"""Security headers on every answer, and a content security policy on HTML: pure ASGI, around any application.

The policy allows what the page needs and nothing else: files of this origin, no inline script or style, no frame.
Who may call from another origin (CORS) and with which key is decided elsewhere.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",  # of images and scripts; an origin that CORS lets in is unhindered
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HTTPS_ONLY = "max-age=31536000"  # a year; not for subdomains, which are not ours


class SecurityHeaders:
    """Middleware: sets the headers of this file over whatever the application set.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on; adds headers where an answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_headers(MutableHeaders(scope=message), route(scope), scope.get("scheme") == "https")
            await send(message)

        await self._app(scope, receive, send_with_headers)


def add_headers(headers: MutableHeaders, path: str, https: bool) -> None:
    """Adds the headers for an answer at `path` to those that it has."""
    headers.update(HEADERS)
    if not path.startswith("/page/"):
        headers["cache-control"] = "no-store"  # answers hold texts
    elif "cache-control" not in headers:
        headers["cache-control"] = "no-cache"  # may be kept, but ask whether it is still the same
    if headers.get("content-type", "").partition(";")[0].strip().lower() in {"text/html", "application/xhtml+xml"}:
        headers["content-security-policy"] = CONTENT_SECURITY_POLICY
    if https:
        headers["strict-transport-security"] = HTTPS_ONLY


def route(scope: Scope) -> str:
    """The path of a request below the prefix that the application is mounted at."""
    path, prefix = scope["path"], scope.get("root_path", "").rstrip("/")
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path
