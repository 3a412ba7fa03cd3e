"""What can go wrong at export."""

from __future__ import annotations

from service.errors import SegserveError


class ExportError(SegserveError):
    """A net cannot be exported, or what was exported is not right; the message names the reason and the way out."""


class UnknownNet(ExportError):
    """No built-in net has that name: wrong usage, not a failure."""
