"""A request's head in, a refusal out where it is too large or two readers could understand it differently."""

from __future__ import annotations

from service.errors import HeadTooLarge, MalformedRequest
from service.handshake import Headers

HEAD_BYTES = 65_536
"""Bytes of a request's line and headers, at most; also of what a chunked body has between two pieces and at its end."""

HEAD_LINES = 100
"""Headers of a request, at most."""


def check_head(method: bytes, version: str, target: bytes, headers: Headers) -> None:
    """Raise HeadTooLarge or MalformedRequest."""
    size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
    if size > HEAD_BYTES or len(headers) > HEAD_LINES:
        raise too_large()
    if method == b"CONNECT":
        raise MalformedRequest("this server is no proxy: CONNECT is not taken")
    if version not in {"1.0", "1.1"}:
        raise MalformedRequest(f"HTTP/{version} is not spoken here: use HTTP/1.1")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (version == "1.1" and not hosts):
        raise MalformedRequest(f"the request has {hosts} headers Host: it must have one")
    encodings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if encodings and (version == "1.0" or encodings != [b"chunked"]):
        raise MalformedRequest("Transfer-Encoding must be chunked, and in HTTP/1.1: send the body as it is")


def too_large() -> HeadTooLarge:
    """The refusal of a head beyond the limits."""
    return HeadTooLarge(
        f"the request's line and headers take more than {HEAD_BYTES} bytes or {HEAD_LINES} lines: send fewer"
    )
