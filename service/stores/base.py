"""A result's id in, its age and the reason why it is not here out; and what every place for results can do."""

from __future__ import annotations

import re
import secrets
import time
from enum import Enum
from typing import Protocol

from service.errors import UnknownResult

RESULT_ID = re.compile("^[0-9a-f]{40}$")
"""What a result's id looks like: eight hexadecimal digits of its birth, 32 that nobody can guess."""

SHOWN = 48
"""How much of a wrong id is repeated in a message."""


class Gone(Enum):
    """Why a result is not here, as the end of a sentence."""

    EXPIRED = "has expired"
    FORGOTTEN = "was forgotten, as a client asked"
    EVICTED = "was evicted to make room for others"
    NEVER = "never was"
    UNTRACED = "is not here: it never was, or was evicted to make room for others"


def new_id(now: float | None = None) -> str:
    """An id for a result that is born now: unguessable, and its age can be read from it."""
    return f"{int(time.time() if now is None else now):08x}{secrets.token_hex(16)}"


def refuse_junk(id: str) -> None:
    """Raise UnknownResult where `id` is none."""
    if not RESULT_ID.fullmatch(id):
        shown = repr(id if len(id) <= SHOWN else f"{id[:SHOWN]}...")
        raise UnknownResult(f"{shown} is no result's id: it has 40 digits and letters a to f; POST /segment gives one")


def birth(id: str) -> int:
    """When the result of a proper id was born, by `time.time`."""
    return int(id[:8], 16)


def unknown(id: str, why: Gone, seconds: float) -> UnknownResult:
    """The error for a result that is not here."""
    return UnknownResult(f"result {id} {why.value}; results are kept for {seconds:g} s, POST /segment gives a new one")


class Store(Protocol):
    """A place where results, which are opaque bytes, are kept for `seconds` after the birth that their id tells."""

    seconds: float

    def put(self, id: str, data: bytes) -> None:
        """Keep a new result; StoreFull or StoreUnavailable where that cannot be."""

    def get(self, id: str) -> bytes:
        """A result that is kept; UnknownResult, which says why, or StoreUnavailable."""

    def forget(self, id: str) -> None:
        """Drop a result now; UnknownResult, which says why, or StoreUnavailable."""

    def sweep(self) -> None:
        """Drop what has expired; StoreUnavailable."""

    def seconds_left(self, id: str) -> float:
        """Until a result expires, which is negative afterwards; UnknownResult where `id` is none."""
        refuse_junk(id)
        return birth(id) + self.seconds - time.time()

    def check(self, id: str) -> None:
        """Raise UnknownResult where `id` alone tells that there is no result."""
        if self.seconds_left(id) <= 0:
            raise unknown(id, Gone.EXPIRED, self.seconds)
