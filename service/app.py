"""Settings in, the ASGI application out; everything it needs is built here, nothing at import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from service import problems
from service.access import Access
from service.cores import usable_cores
from service.desired import Desired, open_state_or_none
from service.draining import Drain
from service.errors import StoreUnavailable
from service.gate import Gate
from service.headers import SecurityHeaders
from service.intake import Intake
from service.keys import Keys
from service.lifecycle import Lifecycle
from service.middleware import RequestContext
from service.repository import Repository
from service.results import Results, open_results
from service.routes import docs, health, hf, metrics, model_page, models, segment, stream, ui, v2
from service.routes import results as stored
from service.routes.documented import describe_keys
from service.settings import Settings
from service.streaming import Places
from service.telemetry import Telemetry
from service.watching import Keeper

if TYPE_CHECKING:
    from service.tracing import Tracing

SWEEP_SECONDS = 60
"""How often results that have expired are removed."""

EXPOSED = (
    "X-Request-ID", "Server-Timing", "Content-Location", "Retry-After", "ETag", "Inference-Header-Content-Length",
)  # fmt: skip
"""Headers that web pages of other origins may read."""

NETS = (segment.router, hf.router, v2.inferring)
"""The routes that run a net, and so may be refused."""

RESOURCES = (stream, stored, models, model_page, health, v2, docs, metrics, ui)

DESCRIPTION = "Semantic segmentation as a service: POST a picture, get a class mask, an overlay or numbers."


def create_app(settings: Settings, lifecycle: Lifecycle | None = None) -> FastAPI:
    """An application with its own models and threads; it starts to load the models when the server starts it.

    `lifecycle`: says when the server may take connections, and when it takes no more work.
    """
    life = lifecycle or Lifecycle()
    cores = settings.threads or max(1, usable_cores() // settings.workers)
    repository = Repository(settings, cores)

    def told() -> None:
        serving = repository.serving()
        names = [(model.name, model.version, model.variant.id, model.name == repository.default()) for model in serving]
        app.state.telemetry.models(names)
        app.state.telemetry.ready(not repository.problems())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gate = Gate(cores, settings.memory_bytes, app.state.telemetry)
        app.state.gate = gate
        with open_results(settings) as results, open_state_or_none(settings.state) as state:
            app.state.results = results
            app.state.keeper = keeper = Keeper(repository, state, settings.watch, told, settings.replicated)
            loading = asyncio.create_task(keeper.load())
            chores = [asyncio.create_task(chore) for chore in (_sweep(results), _keep(keeper, loading))]
            try:
                await life.admission(loading)
                yield
                with suppress(Exception):  # it has been logged, and is why the service was never ready
                    await loading
            finally:
                for chore in chores:
                    chore.cancel()
                gate.close()
                if app.state.tracing is not None:
                    await asyncio.to_thread(app.state.tracing.close)

    app = FastAPIOffline(
        title="segserve",
        version=version("segserve"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.repository = repository
    app.state.lifecycle = life
    app.state.keys = Keys(settings.api_keys, settings.admin_keys)
    app.state.telemetry = Telemetry(cores)
    app.state.places = Places(settings.streams, app.state.telemetry.streams)
    app.state.parts = ui.read_parts()
    app.state.tracing = _tracing(settings)
    life.when_draining(app.state.telemetry.draining)
    for router in (*NETS, *(resource.router for resource in RESOURCES)):
        app.include_router(router)
    _surround(app, settings)
    problems.install(app)
    describe_keys(app, needed=bool(settings.api_keys))

    return app


def _tracing(settings: Settings) -> Tracing | None:
    if settings.traces is None:
        return None
    from service.tracing import Tracing  # noqa: PLC0415 - needs packages that are there only where it is asked for

    return Tracing(settings.traces)


def _surround(app: FastAPI, settings: Settings) -> None:
    """Put around the routes what every request passes, the innermost first."""
    app.add_middleware(Intake, [route for router in NETS for route in router.routes])
    app.add_middleware(Drain, app.state.lifecycle)
    app.add_middleware(Access, app.state.keys, settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    app.add_middleware(RequestContext, app.state.telemetry, app.state.tracing)
    app.add_middleware(SecurityHeaders)


async def _keep(keeper: Keeper, loading: asyncio.Task[Desired]) -> None:
    """Keep the models up with what is wanted, once they are loaded."""
    await keeper.run(await loading)


async def _sweep(results: Results) -> None:
    """Remove expired results, now and then; a store that does not answer is asked again."""
    while results.store is not None:
        await asyncio.sleep(SWEEP_SECONDS)
        with suppress(StoreUnavailable):
            await asyncio.to_thread(results.store.sweep)
