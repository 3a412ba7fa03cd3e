"""What routes need, as annotated types: a route's signature lists its needs.

They are coroutines so that FastAPI calls them where it is: plain functions it would hand to a thread, one by one.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from service.access import key_of
from service.gate import Gate
from service.keys import Keys
from service.lifecycle import Lifecycle
from service.repository import Repository
from service.results import Results
from service.settings import Settings
from service.streaming import Places
from service.telemetry import Telemetry
from service.watching import Keeper


async def _settings(request: HTTPConnection) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _repository(request: HTTPConnection) -> Repository:
    repository: Repository = request.app.state.repository
    return repository


async def _gate(request: HTTPConnection) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


async def _lifecycle(request: HTTPConnection) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


async def _keeper(request: HTTPConnection) -> Keeper:
    keeper: Keeper = request.app.state.keeper
    return keeper


async def _results(request: HTTPConnection) -> Results:
    results: Results = request.app.state.results
    return results


async def _admin(request: HTTPConnection) -> None:
    keys: Keys = request.app.state.keys
    keys.check_admin(key_of(request.headers), request.path_params["name"])


async def _places(request: HTTPConnection) -> Places:
    places: Places = request.app.state.places
    return places


async def _telemetry(request: HTTPConnection) -> Telemetry:
    telemetry: Telemetry = request.app.state.telemetry
    return telemetry


ResultsHere = Annotated[Results, Depends(_results)]
SettingsHere = Annotated[Settings, Depends(_settings)]
RepositoryHere = Annotated[Repository, Depends(_repository)]
GateHere = Annotated[Gate, Depends(_gate)]
PlacesHere = Annotated[Places, Depends(_places)]
TelemetryHere = Annotated[Telemetry, Depends(_telemetry)]
KeeperHere = Annotated[Keeper, Depends(_keeper)]
LifecycleHere = Annotated[Lifecycle, Depends(_lifecycle)]

AdminOnly = Depends(_admin)
"""For a route that loads or unloads the model `name`; a body that it declares is read before this."""
