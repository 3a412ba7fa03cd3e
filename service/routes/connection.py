"""Work for a client in, its result out, unless the client goes away first: then the work is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.visit import CLIENT_CLOSED


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The result of `work`, whose request's body has been read; cancelled when the client disconnects."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=CLIENT_CLOSED)
    finally:
        working.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
