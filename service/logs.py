"""Log records in, lines out: as text for people, or as JSON for programs, each with the request that it belongs to."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from service.settings import Settings
from service.visit import CURRENT, PATH_SHOWN, Visit

OURS = ("service", "segserve")
UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could end a line, or make a terminal show something else than what is there."""


def configure(settings: Settings) -> None:
    """Make every logger of this process write to standard error as the settings say."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Below INFO, only what the service itself says is of use: compilers and decoders say a lot there.
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    for name in UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """One line a record, and indented ones for where an exception came from."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(process)d] %(levelname)s %(name)s: ")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The line itself."""
        visit = CURRENT.get()
        belongs = f", request {visit.id}" if visit else ""
        return super().formatMessage(record) + escaped(record.message) + belongs

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        """Indented: no line of it can be taken for a record."""
        return "\n".join(f"    {escaped(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """One object a record, in one line of ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if visit := CURRENT.get():
            entry |= members(visit)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def members(visit: Visit) -> dict[str, Any]:
    """What a line says of the request that it belongs to, as far as it is known by then."""
    known: dict[str, Any] = {
        "request_id": visit.id,
        "method": visit.method,
        "path": visit.path[:PATH_SHOWN],
    }
    if visit.seconds is not None:
        known |= {"route": visit.route, "status": visit.status, "milliseconds": round(visit.seconds * 1e3, 1)}
    if visit.code is not None:
        known["code"] = visit.code
    if visit.work is not None:
        known |= {"model": visit.work.model, "version": visit.work.version}
    return known


def escaped(text: str) -> str:
    """The text in one line, with nothing in it that a terminal obeys."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
