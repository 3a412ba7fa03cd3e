"""`GET /` and `/ui/{file}`: the web page and its parts, read once when the application is built."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.routes.results import is_known

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent.parent / "ui"
HOME = "index.html"

MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self)",
}
"""What a page has beside the headers of every answer: scripts and styles come from this server's files alone."""


@dataclass(frozen=True)
class Part:
    """A file of the web page, ready to be sent."""

    content: bytes
    media_type: str
    tag: str

    def answer(self, request: Request) -> Response:
        """The file, or that the client has it already; browsers ask each time, so that an update shows at once."""
        known = is_known(request.headers.get("if-none-match", ""), self.tag)
        response = Response(
            b"" if known else self.content,
            HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK,
            headers={"ETag": self.tag, "Cache-Control": "no-cache"},
            media_type=None if known else self.media_type,
        )
        if self.media_type == "text/html":
            response.headers.update(PAGE_HEADERS)
        return response


def read_parts(folder: Path = FOLDER) -> Mapping[str, Part]:
    """The files of the page by name; no others can be asked for."""
    return {path.name: _part(path) for path in folder.iterdir() if path.suffix in MEDIA_TYPES}


def _part(path: Path) -> Part:
    content = path.read_bytes()
    return Part(content, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@router.get("/")
@router.head("/")
async def home(request: Request) -> Response:
    """The workbench."""
    return answer(request, HOME)


@router.get("/ui/{name}")
@router.head("/ui/{name}")
async def part(request: Request, name: str) -> Response:
    """A part of the page, but the workbench itself: its addresses are relative to `/`."""
    return answer(request, name if name != HOME else "")


def answer(request: Request, name: str) -> Response:
    """The page's file of that name. Raises HTTPException (404) where there is none."""
    parts: Mapping[str, Part] = request.app.state.parts
    if name not in parts:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return parts[name].answer(request)
