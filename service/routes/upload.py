"""A request in, the bytes of its one picture out; too much is refused before it is buffered."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.errors import BodyTypeError, MalformedBody, ParameterError, PictureMissing, PictureTooLarge, SlowUpload
from service.gate import Room
from service.manifest import explain

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

Options = TypeVar("Options", bound=BaseModel)

PART = "image"
"""The name of the multipart file part that holds the picture."""

ENVELOPE = 65_536
"""Bytes that multipart's own lines may take beside the picture."""

MAX_PARTS = 16

SMALL = 65_536
"""Bytes of a body that the parser is done with, however hostile they are, before a thread would have begun."""

STALL_SECONDS = 20
"""How long a body may pause; its time as a whole is a setting."""

SHOWN = 100
"""Characters of a header that are repeated in an error."""

EXAMPLE = "curl -F image=@photo.jpg URL, or curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg URL"

# What the parser has to say of a broken body, the answer says.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


async def read_picture(request: Request, room: Room, max_bytes: int, seconds: float) -> bytes:
    """The picture, sent as the multipart part `image` or as the raw body; it is held in `room`.

    Raises PictureMissing, PictureTooLarge, MalformedBody, BodyTypeError, SlowUpload or Overloaded.
    """
    content_type, parameters = parse_options_header(request.headers.get("content-type"))
    if content_type == b"multipart/form-data":
        body = await read_body(request, room, max_bytes, seconds, ENVELOPE)
        boundary = parameters.get(b"boundary", b"")
        if len(body) <= SMALL:
            return _picture_part(body, boundary, max_bytes)
        # In a thread: a hostile body of 32 MiB keeps the parser busy for seconds.
        return await asyncio.to_thread(_picture_part, body, boundary, max_bytes)
    raw = content_type.startswith(b"image/") or content_type == b"application/octet-stream"
    if content_type and not raw:
        raise BodyTypeError(f"Content-Type {content_type.decode('latin-1')[:SHOWN]} holds no picture: {EXAMPLE}")
    body = await read_body(request, room, max_bytes, seconds)
    if not body:
        raise PictureMissing(f"the request has no picture: {EXAMPLE}")
    if not raw:
        raise BodyTypeError(f"the request has no Content-Type: {EXAMPLE}")
    return body


async def read_body(request: Request, room: Room | None, max_bytes: int, seconds: float, envelope: int = 0) -> bytes:
    """The whole body, of at most `max_bytes`, and `envelope` bytes around them.

    `room` is taken as the body arrives, a little ahead of it: who declares much and sends slowly takes little.

    Raises PictureTooLarge at the declared length or as soon as more arrives, SlowUpload after `seconds` or where it
    pauses, MalformedBody where the connection ends before the body, BodyTypeError where it is compressed, Overloaded
    where the room is used up by others.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in {"", "identity"}:
        raise BodyTypeError(f"Content-Encoding {encoding[:SHOWN]} is not taken: send the body as it is")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes + envelope:
        raise _too_large(max_bytes, int(declared))
    body, clock = bytearray(), asyncio.get_running_loop().time
    end = clock() + seconds
    try:
        async with asyncio.timeout_at(min(end, clock() + STALL_SECONDS)) as limit:
            async for chunk in request.stream():
                limit.reschedule(min(end, clock() + STALL_SECONDS))
                body += chunk
                if room is not None:
                    room.hold(len(body) + len(chunk))
                if len(body) > max_bytes + envelope:
                    raise _too_large(max_bytes, None)
    except TimeoutError:
        raise SlowUpload(
            f"{len(body)} bytes arrived, not the whole body: send it within {seconds:g} s, and without a pause of "
            f"{STALL_SECONDS} s"
        ) from None
    except ClientDisconnect:
        raise MalformedBody(f"the connection ended after {len(body)} bytes of the body") from None
    if room is not None:
        room.hold(len(body))
    return bytes(body)


async def read_options(request: Request, kind: type[Options], seconds: float) -> Options:
    """A small body of JSON as `kind`; without one, its defaults.

    Raises as `read_body`, and ParameterError where it is no such thing.
    """
    body = await read_body(request, None, SMALL, seconds)
    try:
        return kind.model_validate_json(body) if body else kind()
    except ValidationError as error:
        raise ParameterError(f"the body is not understood: {explain(error)}") from None


def _too_large(limit: int, actual: int | None) -> PictureTooLarge:
    size = "more" if actual is None else f"{actual} bytes"
    return PictureTooLarge(f"the body has {size}, the limit is {limit} bytes", limit=limit, actual=actual)


def _too_many_parts() -> MalformedBody:
    return MalformedBody(f"the body has more than {MAX_PARTS} parts: send one, named {PART}")


@dataclass
class _Part:
    """A multipart part while it is read."""

    name: bytes = b""
    is_file: bool = False
    content: bytearray = field(default_factory=bytearray)


class _PartReader:
    """Collects the parts that the parser calls out."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self._header = b""
        self._value = b""

    def on_part_begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise _too_many_parts()
        self.parts.append(_Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        part, header = self.parts[-1], self._header.lower()
        kind, parameters = parse_options_header(self._value)
        if header == b"content-disposition":
            part.name = parameters.get(b"name", b"")
            # filename*=, an encoded name, is one that the parser does not know.
            part.is_file |= b"filename" in parameters or b"filename*=" in self._value.lower()
        elif header == b"content-type":
            part.is_file |= not kind.startswith(b"text/")
        self._header = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]


def _picture_part(body: bytes, boundary: bytes, max_bytes: int) -> bytes:
    parts = _parse(body, boundary)
    pictures = [part for part in parts if part.name == PART.encode()]
    if not pictures:
        names = ", ".join(part.name.decode("utf-8", "replace") for part in parts) or "none"
        raise PictureMissing(f"the multipart body has no part {PART!r} (its parts: {names}): {EXAMPLE}")
    if len(pictures) > 1:
        raise MalformedBody(f"the multipart body has {len(pictures)} parts {PART!r}: send one picture a request")
    if not pictures[0].is_file:
        raise PictureMissing(f"the part {PART!r} is text, not a file (was the @ forgotten?): {EXAMPLE}")
    if len(pictures[0].content) > max_bytes:
        raise _too_large(max_bytes, len(pictures[0].content))
    return bytes(pictures[0].content)


def _parse(body: bytes, boundary: bytes) -> list[_Part]:
    if not boundary:
        raise MalformedBody(
            "Content-Type: multipart/form-data names no boundary; let the HTTP library write the header"
        )
    if body.count(b"\r\n--" + boundary) > MAX_PARTS:  # before the parser, which looks at each at length
        raise _too_many_parts()
    reader = _PartReader()
    ended = False

    def on_end() -> None:
        nonlocal ended
        ended = True

    callbacks: MultipartCallbacks = {
        "on_part_begin": reader.on_part_begin,
        "on_part_data": reader.on_part_data,
        "on_header_field": reader.on_header_field,
        "on_header_value": reader.on_header_value,
        "on_header_end": reader.on_header_end,
        "on_end": on_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBody(f"the multipart body cannot be read: {error}") from error
    if body and not ended:
        raise MalformedBody("the multipart body ends before its closing boundary")
    return reader.parts
