"""A request whose body is not read yet in, room in memory for that body out, or a refusal before it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from service.gate import Deadline, Gate, Room

LENGTH_DIGITS = 18
"""Digits of a Content-Length, at most; Python refuses to read thousands of them."""


@contextmanager
def room_for(request: Request, gate: Gate, limit: int, seconds: float) -> Iterator[Room]:
    """Room for the body, at most `limit` bytes of it, until its work is done; the holder says how many bytes came.

    Raises Overloaded where the request would miss its deadline, `seconds` from now, however small its work is, or where
    too many bytes are in memory.
    """
    gate.check(Deadline.after(seconds))
    declared = request.headers.get("content-length", "")
    known = declared.isdecimal() and len(declared) <= LENGTH_DIGITS
    with gate.room(min(int(declared), limit) if known else limit) as room:
        yield room
