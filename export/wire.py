"""Words and an array through a pipe, one message at a time; nothing that is read can run code."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LENGTHS = struct.Struct(">QQ")

Message = tuple[dict[str, Any], NDArray[Any] | None]


def send(stream: IO[bytes], words: Mapping[str, Any], array: NDArray[Any] | None = None) -> None:
    """Write one message: `words`, which JSON can hold, and an array."""
    head, body = json.dumps(words).encode(), BytesIO()
    if array is not None:
        np.save(body, array, allow_pickle=False)
    stream.write(LENGTHS.pack(len(head), body.tell()) + head)
    stream.write(body.getbuffer())
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """Read one message. Raises EOFError where the other side has gone."""
    head, body = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    words: dict[str, Any] = json.loads(_exactly(stream, head))
    return words, np.load(BytesIO(_exactly(stream, body)), allow_pickle=False) if body else None


def _exactly(stream: IO[bytes], length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise EOFError("the other side of the pipe has gone")
    return found
