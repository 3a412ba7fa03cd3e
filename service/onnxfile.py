"""An ONNX file in, whether it keeps weights in other files, and what it calls its input's axes, out; read without the
onnx package.

Only the skeleton of the protocol-buffers message is walked, https://protobuf.dev/programming-guides/encoding/; the
weights themselves are stepped over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

Kind = Literal["model", "function", "graph", "node", "attribute", "sparse", "tensor"]

CHILDREN: Mapping[Kind, Mapping[int, Kind]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Which fields of onnx.proto hold messages that may lead to a tensor."""

INPUTS = (7, 11)
"""The way from a model to its graph's inputs, and below from an input, through type and shape, to its axes."""

AXES = (2, 1, 2, 1)

EXTERNAL_DATA = 13
"""TensorProto's field that names another file."""

DEEPEST = 64
"""How far graphs may be nested in graphs."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def has_external_data(path: Path) -> bool:
    """Whether any tensor in the file at `path` lies in another file. Raises ValueError where it is no ONNX file."""
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _leads_out(content, 0, len(content), "model", 0)


def axis_names(path: Path, name: str) -> tuple[str | None, ...]:
    """What the graph in the file at `path` calls each axis of its input `name`, None where it has no name; () without
    such an input, or where it has no shape. Raises ValueError where it is no ONNX file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for begin, end in _messages(content, 0, len(content), *INPUTS):
            if [content[at:stop].decode() for at, stop in _messages(content, begin, end, 1)] == [name]:
                axes = list(_messages(content, begin, end, *AXES))
                named = [[content[at:stop].decode() for at, stop in _messages(content, *axis, 2)] for axis in axes]
                return tuple(names[0] if names else None for names in named)
    return ()


def _messages(content: mmap.mmap, start: int, end: int, *path: int) -> Iterator[tuple[int, int]]:
    """Where the messages, or texts, begin and end that these fields within fields lead to."""
    for field, wire, begin, stop in fields(content, start, end):
        if field == path[0] and wire == BYTES:
            if path[1:]:
                yield from _messages(content, begin, stop, *path[1:])
            else:
                yield begin, stop


def _leads_out(content: mmap.mmap, start: int, end: int, kind: Kind, depth: int) -> bool:
    if depth > DEEPEST:
        raise ValueError(f"graphs are nested more than {DEEPEST} deep")
    for field, wire, begin, stop in fields(content, start, end):
        if wire != BYTES:
            continue
        if kind == "tensor" and field == EXTERNAL_DATA:
            return True
        child = CHILDREN[kind].get(field)
        if child is not None and _leads_out(content, begin, stop, child, depth + 1):
            return True
    return False


def fields(content: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message between two positions: number, wire type, begin and end of each."""
    while position < end:
        key, position = varint(content, position, end)
        if key >= 2**32:
            raise ValueError(f"the field at byte {position} has the key {key}, keys have 32 bits")
        wire, begin = key & 7, position
        if wire == VARINT:
            _, position = varint(content, position, end)
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        elif wire == BYTES:
            length, begin = varint(content, position, end)
            position = begin + length
        else:
            raise ValueError(f"wire type {wire} at byte {position}: not a protocol-buffers message")
        if position > end:
            raise ValueError(f"a field ends at byte {position}, after its message at byte {end}")
        yield key >> 3, wire, begin, position


def varint(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and the position behind it."""
    value = shift = 0
    while position < end and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"an integer at byte {position} does not end")
