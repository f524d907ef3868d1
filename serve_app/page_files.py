"""The page and its files, at `/`, `/docs` and `/page/<file>`."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).resolve().parent / "page"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def page_routes() -> APIRouter:
    """Routes that need no key: the files say nothing that the repository does not."""
    router = APIRouter(include_in_schema=False)
    files = {path.name: path for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES}

    def answer(name: str) -> FileResponse:
        return FileResponse(files[name], media_type=MEDIA_TYPES[files[name].suffix])

    @router.get("/")
    async def page() -> FileResponse:
        """The page that shows an inversion."""
        return answer("index.html")

    @router.get("/docs")
    async def docs() -> FileResponse:
        """What /openapi.json says, to be read."""
        return answer("docs.html")

    @router.get("/page/{name}")
    async def file(name: str) -> FileResponse:
        """A script or a style of the page."""
        if name not in files:
            raise HTTPException(404, f"the page has no file {name[:40]!r}")
        return answer(name)

    return router
