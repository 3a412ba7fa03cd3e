"""Bodies of the Open Inference Protocol in, tensors out, and back: JSON, and the binary tensor extension."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from service.errors import MalformedBody
from service.manifest import explain
from service.tensors import SLICE, Described, Input, Word, datatype_of, take

PARTS = 1_000_000
"""Lists, objects and their members in a request's JSON, at most: while they are read, all other threads wait."""


class _Output(BaseModel):
    name: Word
    parameters: dict[str, Any] = {}


class Request(BaseModel):
    """A request's JSON."""

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[Described] = Field(min_length=1, max_length=16)
    outputs: list[_Output] = Field(default=[], max_length=16)


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

    Raises MalformedBody where it cannot be understood, TensorError for an element type that is none.
    """
    size = len(body) if header_length is None else header_length
    if not 0 <= size <= len(body):
        raise MalformedBody(f"Inference-Header-Content-Length is {size}, the body has {len(body)} bytes")
    request = _parse(body[:size])
    inputs, rest = [], memoryview(body)[size:]
    for given in request.inputs:
        tensor, used = take(given, rest)
        inputs.append(tensor)
        rest = rest[used:]
    if rest:
        raise MalformedBody(
            f"{len(rest)} bytes follow the last binary tensor: binary_data_size says what belongs to each"
        )
    default = request.parameters.get("binary_data_output") is True
    return Inference(
        request.id,
        tuple(inputs),
        tuple(output.name for output in request.outputs),
        frozenset(output.name for output in request.outputs if output.parameters.get("binary_data", default) is True),
        default and not request.outputs,
    )


def write(
    head: Mapping[str, Any], outputs: Mapping[str, NDArray[np.generic]], asked: Inference, check: Callable[[], None]
) -> Encoded:
    """An answer's body: `head` (model_name and the like), and the outputs, in binary where that was asked for.

    `check` is called now and then while numbers are written; what it raises ends the work.
    """
    opening = json.dumps({**head, **({"id": asked.id} if asked.id is not None else {})})
    text, raw = [f'{opening[:-1]}, "outputs": ['.encode()], []
    for index, (name, array) in enumerate(outputs.items()):
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}
        text.append(b", " if index else b"")
        if name in asked.binary or asked.all_binary:
            raw.append(np.ascontiguousarray(array).data)
            text.append(json.dumps(entry | {"parameters": {"binary_data_size": array.nbytes}}).encode())
        else:
            text += [f'{json.dumps(entry)[:-1]}, "data": ['.encode(), *_numbers(array, check), b"]}"]
    text.append(b"]}")
    return Encoded(b"".join([*text, *raw]), sum(map(len, text)) if raw else None)


def _parse(text: bytes) -> Request:
    parts = sum(map(text.count, (b"[", b"{", b":")))
    if parts > PARTS:
        raise MalformedBody(
            f"the request's JSON has {parts} lists, objects and members, at most {PARTS} are read: send the data flat, "
            "or in binary"
        )
    try:
        return Request.model_validate(from_json(text))
    except ValidationError as error:
        raise MalformedBody(f"the request is not what the protocol says: {explain(error)}") from error
    except ValueError as error:
        raise MalformedBody(f"the request is no JSON that can be read: {error}") from error


def _numbers(array: NDArray[np.generic], check: Callable[[], None]) -> Iterator[bytes]:
    flat = array.ravel()
    for start in range(0, flat.size, SLICE):
        check()
        comma = b"," if start else b""
        yield comma + json.dumps(flat[start : start + SLICE].tolist())[1:-1].encode()
