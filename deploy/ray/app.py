"""`app`: segserve as an application of Ray Serve, for `serve run deploy.ray.app:app`.

Each replica is what a server process is elsewhere, with the cores that Ray gives it; Ray Serve has the sockets. Where
it is deployed (`serve.yaml`), Ray Serve's own options may be overridden; the rest are segserve's settings, in the
environment.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import ray
from fastapi import FastAPI
from ray import serve

from service import logs
from service.app import create_app
from service.errors import ModelNotReady
from service.lifecycle import Lifecycle
from service.settings import Settings

MODELS = Path(__file__).resolve().parents[2] / "models"
"""Where the models are unless SEGSERVE_MODELS says so: a replica runs in no folder of its user's choice."""

MOST_REQUESTS = 10_000
"""That Ray Serve may hand to a replica at once. Beyond what the gate ever admits: it is the gate that refuses."""


@serve.deployment(
    name="segserve",
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={
        "min_replicas": 2,
        "max_replicas": 8,
        "target_ongoing_requests": 4,
        "upscale_delay_s": 10,
        "downscale_delay_s": 120,
    },
    max_ongoing_requests=MOST_REQUESTS,
    max_queued_requests=-1,
    health_check_period_s=10,
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=30,
    logging_config={"enable_access_log": False},
)
@serve.ingress()
class Replica:
    """One server without a socket: it is there once its models are, and healthy while they answer right."""

    def __init__(self) -> None:
        """Raises pydantic.ValidationError for settings that are wrong."""
        given = Settings()
        own = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
        self._settings = given.model_copy(
            update={
                "workers": 1,
                "threads": given.threads or max(1, int(own.get("CPU", 1))),
                "replicated": True,
                "models": given.models if "models" in given.model_fields_set else MODELS,
            }
        )
        logs.configure(self._settings)
        self._was_ready = False
        self._app = create_app(self._settings, Lifecycle(at_once=False, once_loaded=True))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Ray Serve hands the requests to."""
        return self._app

    async def check_health(self) -> None:
        """Called by Ray Serve now and then, which replaces a replica where this raises.

        Raises BundleError where a model that serves no longer sees in its golden picture what it must, and, of a
        replica that never was ready, ModelNotReady where a model has no usable version. What happens to the model
        folder later is no reason to replace a replica that serves the others: its successor would find the same.
        """
        repository = self._app.state.repository
        if not self._was_ready and (problems := repository.problems()):
            raise ModelNotReady("; ".join(problems))
        self._was_ready = True
        for model in repository.serving():
            await asyncio.to_thread(model.prove)


app = cast("serve.Deployment", Replica).bind()
