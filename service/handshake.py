"""A request's head that offers a websocket in, whether it is a handshake that can be answered out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from service.errors import HeadTooLarge, MalformedRequest

Headers = Sequence[tuple[bytes, bytes]]
"""Names, in small letters, and values."""

LINE_BYTES = 8_000
"""Of one line of the head, at most: what reads it next takes no more than 8192."""

KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


def is_handshake(method: bytes, version: str, headers: Headers) -> bool:
    """Whether the request, which asks for an upgrade, is a websocket's handshake (RFC 6455)."""
    head = dict(headers)
    return (
        method == b"GET"
        and version == "1.1"
        and head.get(b"upgrade", b"").lower() == b"websocket"
        and head.get(b"sec-websocket-version") == b"13"
        and KEY.fullmatch(head.get(b"sec-websocket-key", b"")) is not None
        and not head.keys() & {b"content-length", b"transfer-encoding"}
    )


def check_handshake(target: bytes, headers: Headers) -> None:
    """Raise MalformedRequest or HeadTooLarge where the handshake could not be read."""
    if not target.isascii():
        raise MalformedRequest("the request's target is no path")
    if max(len(target), *(len(name) + len(value) for name, value in headers)) > LINE_BYTES:
        raise HeadTooLarge(f"a line of the websocket's handshake takes more than {LINE_BYTES} bytes: send less")
