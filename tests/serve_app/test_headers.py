"""Security headers: on every answer, whatever the application set, and a policy that the pages can live under."""

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.routing import Mount, Route

from serve_app import headers
from serve_app.headers import CONTENT_SECURITY_POLICY, SecurityHeaders

PAGE = Path(headers.__file__).parent / "page"


async def html(request):
    return HTMLResponse("<p>", headers={"x-frame-options": "ALLOWALL", "cache-control": "public"})


async def answer(request):
    return JSONResponse({})


async def kept(request):
    return HTMLResponse("", headers={"cache-control": "max-age=60"})


async def stream(request):
    return StreamingResponse(iter([b"a", b"b"]), media_type="text/event-stream")


ROUTES = [
    Route("/", html),
    Route("/json", answer),
    Route("/page/a.js", answer),
    Route("/page/kept", kept),
    Route("/stream", stream),
]


def get(path, scheme="http", routes=ROUTES):
    async def ask():
        transport = httpx.ASGITransport(SecurityHeaders(Starlette(routes=routes)))
        async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://here") as client:
            return await client.get(path)

    return asyncio.run(ask())


@pytest.mark.parametrize("path", ["/", "/json", "/page/a.js", "/stream", "/none"])
def test_every_answer_has_them(path):
    found = get(path).headers
    assert found["x-content-type-options"] == "nosniff"
    assert found["referrer-policy"] == "no-referrer"
    assert found.get_list("x-frame-options") == ["DENY"]  # over the application's own
    assert found["cross-origin-opener-policy"] == "same-origin"
    assert found["cross-origin-resource-policy"] == "same-origin"
    assert "geolocation=()" in found["permissions-policy"]
    assert "strict-transport-security" not in found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "no-store"),
        ("/json", "no-store"),
        ("/stream", "no-store"),
        ("/none", "no-store"),
        ("/page/a.js", "no-cache"),
        ("/page/kept", "max-age=60"),
    ],
)
def test_only_the_pages_files_may_be_kept(path, expected):
    assert get(path).headers.get_list("cache-control") == [expected]


def test_a_prefix_that_the_application_is_mounted_at_does_not_count():
    async def ask():
        app = SecurityHeaders(Starlette(routes=[Mount("/at", routes=ROUTES)]))
        transport = httpx.ASGITransport(app, root_path="/at")
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get("/at/page/a.js")

    assert asyncio.run(ask()).headers["cache-control"] == "no-cache"


def test_the_policy_is_on_html_only():
    assert get("/").headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "content-security-policy" not in get("/json").headers
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def test_https_alone_is_told_to_stay():
    assert get("/", "https").headers["strict-transport-security"] == "max-age=31536000"


def test_an_answer_keeps_its_body_and_lifespan_passes():
    assert get("/stream").text == "ab"
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(SecurityHeaders(app)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


# The page of the routes, that stands at /docs


class Tags(HTMLParser):
    """Everything in a page that a policy without 'unsafe-inline' and outside origins would refuse."""

    def __init__(self):
        super().__init__()
        self.files, self.refused, self._script = [], [], False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._script = tag == "script"
        self.refused += [name for name in given if name.startswith("on") or name == "style"]
        self.refused += [tag] * (tag in {"style", "base", "iframe", "object", "form"})
        self.files += [given[name] for name in ("src", "href") if given.get(name) and tag != "a"]

    def handle_data(self, data):
        if self._script and data.strip():
            self.refused.append(data)

    def handle_endtag(self, tag):
        self._script = False


def test_the_docs_page_lives_under_the_policy_with_files_of_its_own():
    tags = Tags()
    tags.feed((PAGE / "docs.html").read_text(encoding="utf-8"))
    assert tags.refused == [] and tags.files
    for name in (name for name in tags.files if name != "data:,"):
        assert name.startswith("page/") and (PAGE / name.removeprefix("page/")).is_file(), name


@pytest.mark.parametrize("name", ["docs.html", "docs.js", "docs.css"])
def test_the_docs_page_names_no_outside_address_and_writes_no_html(name):
    text = (PAGE / name).read_text(encoding="utf-8")
    assert not re.search(
        r"https?://|//[a-z]|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
    )
