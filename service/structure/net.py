"""An ONNX file in, its graph as plain data out: operators, their attributes and all shapes, but no weights.

Read without the onnx package, and within bounds: large tensors are stepped over, graphs within graphs are counted and
not entered, and a file with more parts than a net has is refused.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.onnxfile import BYTES, FIXED32, FIXED64, VARINT, fields, varint

MOST_PARTS = 2_000_000
"""Fields that are looked at in one file; nets of thousands of layers have a tenth of that."""

SMALL = 64
"""Values of a tensor up to which they are read: sizes and scales, not weights."""

MOST_BYTES = 4096
"""Of a name or another text."""

Value = NDArray[Any]
"""Whole numbers as int64, others as float64."""

Attribute = int | float | str | tuple[int, ...] | Value

RAW: Mapping[int, str] = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
"""TensorProto's data types that are read, as numpy names them."""


@dataclass(frozen=True)
class Node:
    """One operator: what it reads and writes, by name ('' where an optional one is left out)."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def number(self, name: str, default: int) -> int:
        """An attribute that is one whole number."""
        found = self.attributes.get(name, default)
        return found if isinstance(found, int) else default

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is a row of whole numbers."""
        found = self.attributes.get(name, default)
        return found if isinstance(found, tuple) and found else default

    def text(self, name: str, default: str) -> str:
        """An attribute that is text."""
        found = self.attributes.get(name, default)
        return found if isinstance(found, str) else default


@dataclass(frozen=True)
class Net:
    """A graph in the order in which its file has it.

    `weights`: the shapes of its constants; `values`: those that are small, themselves; `inputs`: shapes, None for a
    side that is not fixed; `inner`: how many graphs and functions within it were not entered.
    """

    nodes: tuple[Node, ...]
    weights: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Value]
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    inner: int


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    value: Value | None


def read_net(path: Path) -> Net:
    """The graph of the file at `path`. Raises ValueError where it is no ONNX file, or none of bounded size; OSError."""
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _Reader(content).net()


class _Reader:
    """Walks one file; counts its steps."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._left = MOST_PARTS
        self._inner = 0

    def net(self) -> Net:
        graph, functions = None, 0
        for field, _, begin, end in self._fields(0, len(self._content)):
            if field == 7:
                graph = (begin, end)
            functions += field == 25
        if graph is None:
            raise ValueError("the file has no graph")
        nodes: list[Node] = []
        tensors: list[_Tensor] = []
        inputs: dict[str, tuple[int | None, ...]] = {}
        outputs: list[str] = []
        for field, _, begin, end in self._fields(*graph):
            if field == 1:
                nodes.append(self._node(begin, end))
            elif field == 5:
                tensors.append(self._tensor(begin, end))
            elif field == 11:
                inputs.update([self._input(begin, end)])
            elif field == 12:
                outputs.append(self._input(begin, end)[0])
        weights = {tensor.name: tensor.shape for tensor in tensors}
        values = {tensor.name: tensor.value for tensor in tensors if tensor.value is not None}
        real = {name: shape for name, shape in inputs.items() if name not in weights}
        return Net(tuple(nodes), weights, values, real, tuple(outputs), self._inner + functions)

    def _fields(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        for found in fields(self._content, begin, end):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"the file has more than {MOST_PARTS} parts")
            yield found

    def _text(self, begin: int, end: int) -> str:
        return self._content[begin : min(end, begin + MOST_BYTES)].decode(errors="replace")

    def _node(self, begin: int, end: int) -> Node:
        names: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
        attributes: dict[str, Attribute] = {}
        for field, _, start, stop in self._fields(begin, end):
            if field in names:
                names[field].append(self._text(start, stop))
            elif field == 5:
                attributes.update(self._attribute(start, stop))
        return Node("".join(names[4]), tuple(names[1]), tuple(names[2]), attributes)

    def _attribute(self, begin: int, end: int) -> dict[str, Attribute]:
        """The attribute by name; nothing where it is of a kind that no question needs."""
        name = ""
        found: Attribute | None = None
        integers: list[int] = []
        floats: list[float] = []
        for field, wire, start, stop in self._fields(begin, end):
            if field == 1:
                name = self._text(start, stop)
            elif field == 2 and wire == FIXED32:
                found = float(struct.unpack("<f", self._content[start:stop])[0])
            elif field == 3 and wire == VARINT:
                found = self._integer(start, stop)
            elif field == 4:
                found = self._text(start, stop)
            elif field == 5:
                found = self._tensor(start, stop).value
            elif field == 7:
                floats += self._numbers(4, wire, start, stop)
            elif field == 8:
                integers += self._integers(wire, start, stop)
            self._inner += field in (6, 11)
        if integers or floats:
            found = tuple(integers) or np.array(floats)
        return {} if found is None else {name: found}

    def _input(self, begin: int, end: int) -> tuple[str, tuple[int | None, ...]]:
        """Name and shape of what goes in or comes out."""
        name = ""
        shape: list[int | None] = []
        for field, _, start, stop in self._fields(begin, end):
            if field == 1:
                name = self._text(start, stop)
            elif field == 2:
                for _, _, *dims in self._within(start, stop, 1, 2, 1):
                    sides = [self._integer(a, b) for number, _, a, b in self._fields(*dims) if number == 1]
                    shape.append(sides[0] if sides and sides[0] > 0 else None)
        return name, tuple(shape)

    def _within(self, begin: int, end: int, *path: int) -> Iterator[tuple[int, int, int, int]]:
        """The fields that lie at the end of a path of field numbers."""
        for found in self._fields(begin, end):
            if found[0] == path[0] and found[1] == BYTES:
                if len(path) == 1:
                    yield found
                else:
                    yield from self._within(found[2], found[3], *path[1:])

    def _tensor(self, begin: int, end: int) -> _Tensor:
        name, kind = "", 0
        shape: list[int] = []
        numbers: list[float] = []
        raw: bytes | None = None
        for field, wire, start, stop in self._fields(begin, end):
            if field == 1:
                shape += self._integers(wire, start, stop)
            elif field == 2:
                kind = self._integer(start, stop)
            elif field == 8:
                name = self._text(start, stop)
            elif field == 9 and stop - start <= 8 * SMALL:
                raw = self._content[start:stop]
            elif field in (4, 5, 7, 10) and len(numbers) <= SMALL and stop - start <= 10 * SMALL:
                numbers += self._numbers(field, wire, start, stop)
        return _Tensor(name, tuple(shape), _value(kind, tuple(shape), raw, numbers))

    def _numbers(self, field: int, wire: int, begin: int, end: int) -> list[float]:
        """Of float_data, int32_data, int64_data or double_data, packed or one by one."""
        if field in (5, 7):
            return list(self._integers(wire, begin, end))
        size, form = (4, "<f4") if field == 4 else (8, "<f8")
        whole = wire in (BYTES, FIXED32, FIXED64) and (end - begin) % size == 0
        return np.frombuffer(self._content[begin:end], form).tolist() if whole else []

    def _integer(self, begin: int, end: int) -> int:
        value = varint(self._content, begin, end)[0]
        return value - 2**64 if value >= 2**63 else value

    def _integers(self, wire: int, begin: int, end: int) -> list[int]:
        """Of a repeated field, packed or one by one."""
        if wire == VARINT:
            return [self._integer(begin, end)]
        found: list[int] = []
        while begin < end and len(found) <= SMALL:
            value, begin = varint(self._content, begin, end)
            found.append(value - 2**64 if value >= 2**63 else value)
        return found


def _value(kind: int, shape: tuple[int, ...], raw: bytes | None, numbers: list[float]) -> Value | None:
    """A tensor's values where they are few and of a kind that is read."""
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if kind not in RAW or not 0 <= count <= SMALL:
        return None
    form = np.dtype(RAW[kind])
    if raw is not None and len(raw) == count * form.itemsize:
        found = np.frombuffer(raw, form)
    elif len(numbers) == count and kind != 10:
        found = np.array(numbers)
    else:
        return None
    whole = form.kind in "iub"
    return found.reshape(shape).astype(np.int64 if whole else np.float64)
