"""A client, a JPEG and parameters in, how long the call took out, from a client that does nothing with the answer."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import httpx


def call(client: httpx.Client, picture: bytes, parameters: Mapping[str, str]) -> float:
    """Milliseconds of a `POST /segment`, until its answer has been read. Raises HTTPStatusError for an error."""
    start = perf_counter()
    headers = {"Content-Type": "image/jpeg"}
    client.post("/segment", params=parameters, content=picture, headers=headers).raise_for_status()
    return 1000 * (perf_counter() - start)
