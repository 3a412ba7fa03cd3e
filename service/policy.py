"""`repository.json` in, the operator's choices out: the default model, and the version that serves a model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from service.manifest import Record, explain

logger = logging.getLogger(__name__)

FILE = "repository.json"


class Policy(Record):
    """`repository.json`: the model for requests that name none, and the version that serves a model."""

    default: str | None = None
    pin: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """The newest policy that could be understood (None where none ever was), and what is wrong with the file now."""

    policy: Policy | None
    problem: str | None = None


class PolicyFile:
    """The file in a model folder; read again when it has changed. While it is broken, the last good one holds."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._stamp: tuple[int, int] | None = None
        self._reading = Reading(Policy())

    def read(self) -> Reading:
        """The policy as it is now; an absent file is an empty policy."""
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_size
        except OSError:
            self._stamp, self._reading = None, Reading(Policy())
            return self._reading
        if stamp != self._stamp:
            first = self._stamp is None
            self._stamp, self._reading = stamp, self._parse(None if first else self._reading.policy)
        return self._reading

    def _parse(self, last_good: Policy | None) -> Reading:
        try:
            return Reading(Policy.model_validate_json(self._path.read_bytes()))
        except (OSError, ValidationError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else f"cannot be read: {error.strerror}"
            logger.error("%s: %s", self._path, reason)
            return Reading(last_good, f"{self._path}: {reason}")
