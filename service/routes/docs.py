"""`GET /docs`: the interface's description for people, a page that runs no script but the server's own."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

ASSETS = "static-offline-docs"
"""Where fastapi-offline has put Swagger UI's files; all addresses are relative, for a server behind a prefix."""

INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@router.get("/docs")
@router.head("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    )
    page.headers["Content-Security-Policy"] = policy(bytes(page.body))
    return page


def policy(page: bytes) -> str:
    """Scripts: the files of this server, and those written in the page, by their hashes."""
    hashes = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in INLINE.findall(page)]
    scripts = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
