"""What can go wrong for a caller of the client; `str()` says what happened and what to do about it.

SegserveClientError
|- Refused           the service answered, but not with what was asked for
|- Unreachable       no answer came
|- Unreadable        an answer came that is none of segserve's
`- UnusablePicture   what was given as a picture is none that can be sent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class SegserveClientError(Exception):
    """The root of all errors that the clients raise; a picture's file that cannot be read is an OSError."""


@dataclass(frozen=True)
class Problem:
    """What a refusing answer says: HTTP `status`, `code` as in docs/errors.md (None where the answer has none), the
    sentence `detail`, the `request_id` that the server's log knows it by, the seconds of Retry-After, and all
    `members` of the body."""

    status: int
    detail: str
    code: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    members: Mapping[str, Any] = field(default_factory=dict)


class Refused(SegserveClientError):
    """The service answered with an error; `problem` holds all that it said."""

    def __init__(self, problem: Problem) -> None:
        marks = [f"HTTP {problem.status}", problem.code, problem.request_id and f"request {problem.request_id}"]
        super().__init__(f"{problem.detail} ({', '.join(mark for mark in marks if mark)})")
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str | None:
        """The kind of error, for programs to decide by: `picture-too-large`."""
        return self.problem.code

    @property
    def detail(self) -> str:
        """What was wrong, in a sentence."""
        return self.problem.detail

    @property
    def request_id(self) -> str | None:
        """What the server's log knows the request by."""
        return self.problem.request_id

    @property
    def limit(self) -> int | None:
        """The limit that was exceeded, where it was one."""
        return self.problem.members.get("limit")

    @property
    def actual(self) -> int | None:
        """What exceeded the limit, where the service counted it."""
        return self.problem.members.get("actual")


class Unreachable(SegserveClientError):
    """No answer came: nobody listens there, the connection broke, or the time was up."""


class Unreadable(SegserveClientError):
    """An answer came that is not what segserve answers: something else listens there, or another version."""


class UnusablePicture(SegserveClientError, ValueError):
    """What was given as a picture is none that can be sent: an array of another shape or type, text, nothing."""
