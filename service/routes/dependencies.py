"""What routes need, as annotated types: a route's signature lists its needs.

They are coroutines so that FastAPI calls them where it is: plain functions it would hand to a thread, one by one.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from service.gate import Gate
from service.repository import Repository
from service.results import Results
from service.settings import Settings


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _repository(request: Request) -> Repository:
    repository: Repository = request.app.state.repository
    return repository


async def _gate(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


async def _results(request: Request) -> Results:
    results: Results = request.app.state.results
    return results


ResultsHere = Annotated[Results, Depends(_results)]
SettingsHere = Annotated[Settings, Depends(_settings)]
RepositoryHere = Annotated[Repository, Depends(_repository)]
GateHere = Annotated[Gate, Depends(_gate)]
