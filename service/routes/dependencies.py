"""What routes need, as annotated types: a route's signature lists its needs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from service.gate import Gate
from service.repository import Repository
from service.settings import Settings


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _repository(request: Request) -> Repository:
    repository: Repository = request.app.state.repository
    return repository


def _gate(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


SettingsHere = Annotated[Settings, Depends(_settings)]
RepositoryHere = Annotated[Repository, Depends(_repository)]
GateHere = Annotated[Gate, Depends(_gate)]
