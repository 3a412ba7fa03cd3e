"""Bodies of the Open Inference Protocol in, tensors out, and back: JSON, and the binary tensor extension."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from service.errors import MalformedBody, TensorError
from service.manifest import explain

DATATYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
"""The protocol's words for element types."""

BYTES = "BYTES"
SLICE = 10_000
"""Numbers that are written as JSON at a time: other threads come to their turn in between."""


class _Input(BaseModel):
    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Output(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class _Request(BaseModel):
    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[_Input] = Field(min_length=1, max_length=16)
    outputs: list[_Output] = Field(default=[], max_length=16)


@dataclass(frozen=True)
class Input:
    """A tensor that was sent: an array, or for BYTES its elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: NDArray[np.generic] | None
    elements: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Inference:
    """What a client asks: its own id, tensors, the outputs that it names (none: all), and which it wants in binary."""

    id: str | None
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    binary: frozenset[str]
    all_binary: bool


@dataclass(frozen=True)
class Encoded:
    """A body; `header_length` is how much of it is JSON where binary tensors follow, else None."""

    content: bytes
    header_length: int | None


def read(body: bytes, header_length: int | None) -> Inference:
    """The request in a body, the first `header_length` bytes of which are JSON (None: all).

    Raises MalformedBody where it cannot be understood.
    """
    size = len(body) if header_length is None else header_length
    if not 0 <= size <= len(body):
        raise MalformedBody(f"Inference-Header-Content-Length is {size}, the body has {len(body)} bytes")
    try:
        request = _Request.model_validate_json(body[:size])
    except ValidationError as error:
        raise MalformedBody(f"the request is not what the protocol says: {explain(error)}") from error
    inputs, rest = [], memoryview(body)[size:]
    for given in request.inputs:
        tensor, used = _input(given, rest)
        inputs.append(tensor)
        rest = rest[used:]
    if rest:
        raise MalformedBody(
            f"{len(rest)} bytes follow the last binary tensor: binary_data_size says what belongs to each"
        )
    return Inference(
        request.id,
        tuple(inputs),
        tuple(output.name for output in request.outputs),
        frozenset(output.name for output in request.outputs if output.parameters.get("binary_data") is True),
        request.parameters.get("binary_data_output") is True,
    )


def write(head: Mapping[str, Any], outputs: Mapping[str, NDArray[np.generic]], asked: Inference) -> Encoded:
    """An answer's body: `head` (model_name and the like), and the outputs, in binary where that was asked for."""
    described, raw = [], []
    for name, array in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
        if name in asked.binary or asked.all_binary:
            raw.append(np.ascontiguousarray(array).tobytes())
            described.append(json.dumps(entry | {"parameters": {"binary_data_size": len(raw[-1])}}))
        else:
            described.append(f'{json.dumps(entry)[:-1]}, "data": [{",".join(_numbers(array))}]}}')
    opening = json.dumps({**head, **({"id": asked.id} if asked.id is not None else {})})
    text = f'{opening[:-1]}, "outputs": [{", ".join(described)}]}}'.encode()
    return Encoded(b"".join([text, *raw]), len(text) if raw else None)


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's word for an array's element type."""
    return next(word for word, kind in DATATYPES.items() if dtype == kind)


def _numbers(array: NDArray[np.generic]) -> Iterator[str]:
    flat = array.ravel()
    for start in range(0, flat.size, SLICE):
        yield json.dumps(flat[start : start + SLICE].tolist())[1:-1]


def _input(given: _Input, rest: memoryview) -> tuple[Input, int]:
    """The tensor, and how many bytes of `rest` are its own."""
    size = given.parameters.get("binary_data_size")
    if size is None and given.data is None:
        raise MalformedBody(f"the input {given.name!r} has neither data nor binary_data_size")
    if size is not None and (not isinstance(size, int) or not 0 <= size <= len(rest)):
        raise MalformedBody(f"the input {given.name!r} has binary_data_size {size!r}; {len(rest)} bytes are left")
    if min(given.shape, default=0) < 0:
        raise MalformedBody(f"the input {given.name!r} has the shape {given.shape}: sides are 0 and more")
    wanted = math.prod(given.shape)
    if given.datatype == BYTES:
        elements = _texts(given) if size is None else _elements(given.name, rest[:size])
        _check_count(given, len(elements), wanted)
        return Input(given.name, BYTES, tuple(given.shape), None, elements), size or 0
    if given.datatype not in DATATYPES:
        raise TensorError(f"the input {given.name!r} is {given.datatype}; known are {', '.join([*DATATYPES, BYTES])}")
    kind = np.dtype(DATATYPES[given.datatype])
    if size is not None:
        _check_count(given, size / kind.itemsize, wanted)
        array = np.frombuffer(rest[:size], kind).reshape(given.shape) if wanted else np.empty(given.shape, kind)
    else:
        array = _array(given, kind)
        _check_count(given, array.size, wanted)
        array = array.reshape(given.shape)
    return Input(given.name, given.datatype, tuple(given.shape), array), size or 0


def _array(given: _Input, kind: np.dtype[Any]) -> NDArray[np.generic]:
    """Numbers out of JSON, flat or nested, each in the range of its type."""
    try:
        values = np.asarray(given.data)
        if values.dtype.kind not in "biuf":
            raise ValueError("not all are numbers")
        if kind.kind in "iu" and values.size and not _fits(values, kind):
            raise ValueError(f"not all are whole numbers that {given.datatype} holds")
        return values.astype(kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedBody(f"the data of the input {given.name!r} cannot be read: {error}") from error


def _fits(values: NDArray[Any], kind: np.dtype[Any]) -> bool:
    limits = np.iinfo(kind)
    return values.dtype.kind in "biu" and values.min() >= limits.min and values.max() <= limits.max


def _texts(given: _Input) -> tuple[bytes, ...]:
    """Elements of BYTES out of JSON, as base64, flat or nested."""
    items: list[Any] = given.data or []
    while any(isinstance(item, list) for item in items):
        items = [inner for item in items for inner in (item if isinstance(item, list) else [item])]
    try:
        return tuple(base64.b64decode(item, validate=True) for item in items)
    except (binascii.Error, TypeError, ValueError) as error:
        raise MalformedBody(
            f"the data of the input {given.name!r} is not base64: send bytes as base64, or in binary"
        ) from error


def _elements(name: str, raw: memoryview) -> tuple[bytes, ...]:
    """Elements of BYTES out of the binary form: four bytes of length, little-endian, before each."""
    found: list[bytes] = []
    start = 0
    while start < len(raw):
        if start + 4 > len(raw) or (end := start + 4 + struct.unpack_from("<I", raw, start)[0]) > len(raw):
            raise MalformedBody(f"the binary data of the input {name!r} ends within an element, after {len(found)}")
        found.append(bytes(raw[start + 4 : end]))
        start = end
    return tuple(found)


def _check_count(given: _Input, count: float, wanted: int) -> None:
    if count != wanted:
        raise MalformedBody(f"the input {given.name!r} has {count:g} elements, its shape {given.shape} says {wanted}")
