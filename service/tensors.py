"""A tensor as the Open Inference Protocol describes it, its numbers in JSON or in binary, in; a typed one out."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from service.errors import MalformedBody, TensorError

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

ELEMENTS = 10_000
"""Elements of BYTES, at most: each is a picture."""

SLICE = 10_000
"""Numbers that are converted at a time: other threads come to their turn in between."""

Word = Annotated[str, Field(max_length=256)]
Side = Annotated[int, Field(ge=0, lt=2**31)]


class Described(BaseModel):
    """A tensor as a request describes it; `data` is a list where it is sent as JSON."""

    name: Word
    shape: list[Side] = Field(max_length=8)
    datatype: Word
    parameters: dict[str, Any] = {}
    data: Any = None


@dataclass(frozen=True)
class Input:
    """A tensor that was sent: an array, or for BYTES its elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    array: NDArray[np.generic] | None
    elements: tuple[bytes, ...] = ()


def take(given: Described, rest: memoryview) -> tuple[Input, int]:
    """The tensor, and how many bytes of `rest`, the binary part of the body from here on, are its own.

    Raises MalformedBody where its data is not what it says, TensorError for an element type that is none.
    """
    size = given.parameters.get("binary_data_size")
    if size is None and not isinstance(given.data, list):
        raise MalformedBody(f"the input {given.name!r} has neither a list as data nor binary_data_size")
    if size is not None and (type(size) is not int or not 0 <= size <= len(rest)):
        raise MalformedBody(f"the input {given.name!r} has binary_data_size {size!r}; {len(rest)} bytes are left")
    own = None if size is None else rest[:size]
    if given.datatype == BYTES:
        return Input(given.name, BYTES, tuple(given.shape), None, _elements(given, own)), size or 0
    if given.datatype not in DATATYPES:
        raise TensorError(f"the input {given.name!r} is {given.datatype}; known are {', '.join([*DATATYPES, BYTES])}")
    kind = np.dtype(DATATYPES[given.datatype])
    array = _from_json(given, kind) if own is None else _from_binary(given, kind, own)
    return Input(given.name, given.datatype, tuple(given.shape), array.reshape(given.shape)), size or 0


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's word for an array's element type."""
    return next(word for word, kind in DATATYPES.items() if dtype == kind)


def _from_binary(given: Described, kind: np.dtype[Any], own: memoryview) -> NDArray[np.generic]:
    _check_count(given, len(own), kind.itemsize, "bytes")
    return np.frombuffer(own, kind) if len(own) else np.empty(0, kind)


def _from_json(given: Described, kind: np.dtype[Any]) -> NDArray[np.generic]:
    """Numbers out of JSON, flat or nested, each in the range of its type."""
    items = _leaves(given)
    _check_count(given, len(items), 1, "elements")
    array = np.empty(len(items), kind)
    try:
        for start in range(0, len(items), SLICE):
            array[start : start + SLICE] = _numbers(items[start : start + SLICE], kind)
    except (ValueError, ArithmeticError) as error:
        raise MalformedBody(f"the data of the input {given.name!r} cannot be read: {error}") from error
    return array


def _numbers(items: list[Any], kind: np.dtype[Any]) -> NDArray[np.generic]:
    # Looked at before numpy does: it would make room for the longest text in every place.
    if not {type(item) for item in items} <= {int, float, bool}:
        raise ValueError("not all are numbers")
    values = np.asarray(items)
    if kind.kind in "iu" and not _fits(values, kind):
        raise ValueError(f"not all are whole numbers that {kind} holds")
    with np.errstate(over="raise"):
        converted: NDArray[np.generic] = values.astype(kind)
    return converted


def _fits(values: NDArray[Any], kind: np.dtype[Any]) -> bool:
    limits = np.iinfo(kind)
    return values.dtype.kind in "biu" and values.min() >= limits.min and values.max() <= limits.max


def _leaves(given: Described) -> list[Any]:
    """What the lists of `data` hold, all of them nested alike."""
    items: list[Any] = given.data
    while items and isinstance(items[0], list):
        if len({len(item) if isinstance(item, list) else None for item in items}) > 1:
            raise MalformedBody(f"the data of the input {given.name!r} is nested unevenly: send it flat")
        items = list(chain.from_iterable(items))
    return items


def _elements(given: Described, own: memoryview | None) -> tuple[bytes, ...]:
    """Elements of BYTES: base64 in JSON, or the binary form."""
    if math.prod(given.shape) > ELEMENTS:
        raise MalformedBody(f"the input {given.name!r} has the shape {given.shape}: at most {ELEMENTS} are taken")
    if own is not None:
        found = tuple(_split(given, own))
        _check_count(given, len(found), 1, "elements")
        return found
    items = _leaves(given)
    _check_count(given, len(items), 1, "elements")
    try:
        return tuple(base64.b64decode(item, validate=True) for item in items)
    except (binascii.Error, TypeError, ValueError) as error:
        raise MalformedBody(
            f"the data of the input {given.name!r} is not base64: send bytes as base64, or in binary"
        ) from error


def _split(given: Described, own: memoryview) -> Iterator[bytes]:
    """Elements of BYTES in the binary form, up to one too many: four bytes of length, little-endian, before each."""
    start, wanted = 0, math.prod(given.shape)
    for index in range(wanted + 1):
        if start == len(own):
            return
        if start + 4 > len(own) or (end := start + 4 + struct.unpack_from("<I", own, start)[0]) > len(own):
            raise MalformedBody(f"the binary data of the input {given.name!r} ends within an element, after {index}")
        yield bytes(own[start + 4 : end])
        start = end


def _check_count(given: Described, count: int, each: int, what: str) -> None:
    """Compare `count` with what the shape says, of which every element takes `each`."""
    wanted = math.prod(given.shape) * each
    if count != wanted:
        raise MalformedBody(f"the input {given.name!r} has {count} {what}, its shape {given.shape} says {wanted}")
