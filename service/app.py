"""Settings in, the ASGI application out; everything it needs is built here, nothing at import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.responses import RedirectResponse

from service import problems
from service.cores import usable_cores
from service.errors import StoreUnavailable
from service.gate import Gate
from service.middleware import RequestContext
from service.repository import Repository
from service.results import Results, open_results
from service.routes import health, hf, models, segment, v2
from service.routes import results as stored
from service.settings import Settings

SWEEP_SECONDS = 60
"""How often results that have expired are removed."""

DESCRIPTION = "Semantic segmentation as a service: POST a picture, get a class mask, an overlay or numbers."


def create_app(settings: Settings) -> FastAPI:
    """An application with its own models and threads; it starts to load the models when the server starts it."""
    cores = settings.threads or max(1, usable_cores() // settings.workers)
    repository = Repository(settings, cores)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gate = Gate(cores)
        app.state.gate = gate
        loading = asyncio.create_task(asyncio.to_thread(repository.load))
        with open_results(settings) as results:
            app.state.results = results
            sweeping = asyncio.create_task(_sweep(results))
            try:
                yield
                with suppress(Exception):  # it has been logged, and is why the service was never ready
                    await loading
            finally:
                sweeping.cancel()
                gate.close()

    app = FastAPIOffline(
        title="segserve",
        version=version("segserve"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.repository = repository
    app.add_middleware(RequestContext)
    problems.install(app)
    for resource in (segment, stored, models, health, v2, hf):
        app.include_router(resource.router)

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("docs")

    return app


async def _sweep(results: Results) -> None:
    """Remove expired results, now and then; a store that does not answer is asked again."""
    while results.store is not None:
        await asyncio.sleep(SWEEP_SECONDS)
        with suppress(StoreUnavailable):
            await asyncio.to_thread(results.store.sweep)
