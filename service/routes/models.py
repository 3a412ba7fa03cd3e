"""`GET /models`: the models that are served, how they were proved, and their palettes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from service.bundle import Model
from service.repository import Repository
from service.routes.dependencies import RepositoryHere

router = APIRouter(prefix="/models", tags=["models"])

PROBLEM: dict[str, dict[str, str]] = {"application/problem+json": {}}
LOADING: dict[int | str, dict[str, Any]] = {503: {"description": "The models are still loading", "content": PROBLEM}}
UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"description": "No model of that name", "content": PROBLEM},
    422: {"description": "The name cannot be understood", "content": PROBLEM},
}


@router.get("", responses=LOADING)
@router.head("", include_in_schema=False)
async def models(repository: RepositoryHere) -> dict[str, list[dict[str, Any]]]:
    """Every model with a usable version."""
    return {"models": [describe(repository, model) for model in repository.serving()]}


@router.get("/{name}", responses=LOADING | UNKNOWN)
@router.head("/{name}", include_in_schema=False)
async def model(name: str, repository: RepositoryHere) -> dict[str, Any]:
    """One model."""
    return describe(repository, repository.get(name))


def describe(repository: Repository, model: Model) -> dict[str, Any]:
    """What the API says of a model."""
    manifest = model.manifest
    return {
        "name": model.name,
        "version": model.version,
        "versions": sorted(repository.catalog.models[model.name]),
        "default": model.name == repository.default(),
        "description": manifest.description,
        "classes": [spec.model_dump() for spec in manifest.classes],
        "license": manifest.license,
        "proved": model.proved,
        "variant": model.variant.id,
        "trials": [asdict(trial) for trial in model.trials],
        "check": model.variant.check and model.variant.check.model_dump(mode="json"),
        "metrics": manifest.metrics,
    }
