"""A number in, a request out: the mixture that a soak is made of, the same in every run but for the results' ids."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, get_args

import httpx

from benchmarks.photos import photo
from service.render import View

SIZES: Mapping[tuple[int, int], float] = {
    (256, 192): 0.25,
    (480, 360): 0.35,
    (816, 612): 0.2,
    (1156, 867): 0.12,
    (2000, 1500): 0.06,
    (4000, 3000): 0.02,
}
"""Width and height, 0.05 to 12 megapixels, and how often they come."""

KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}

VIEWS: Sequence[View] = get_args(View)

AGAIN, HOSTILE, OTHER = 0.2, 0.1, 0.02
"""The shares of requests for stored results, of hostile ones, and of what costs nothing; the others bring a picture."""

PLAIN = ("/models", "/models/camvid-enet", "/health/ready", "/metrics", "/openapi.json")


@dataclass(frozen=True)
class Ask:
    """A request, in words and in full; whether it may be answered well, and whether with a documented error."""

    what: str
    method: str
    path: str
    parts: Mapping[str, Any]
    may_succeed: bool = True
    may_fail: bool = False

    def request(self, client: httpx.Client) -> httpx.Request:
        """As the client sends it."""
        return client.build_request(self.method, self.path, **self.parts)


@dataclass(frozen=True)
class Picture:
    """A picture file, in words and in bytes."""

    what: str
    kind: str
    content: bytes


@dataclass(frozen=True)
class Mixture:
    """Pictures by size, in each format."""

    pictures: Mapping[tuple[int, int], Sequence[Picture]]

    @classmethod
    def drawn(cls, megapixels: float) -> Mixture:
        """With drawn scenes, of so many megapixels at most."""
        pictures = {
            size: [Picture(f"{kind} {size[0]}x{size[1]}", media, photo(*size, kind)) for kind, media in KINDS.items()]
            for size in SIZES
            if size[0] * size[1] <= megapixels * 1e6
        }
        return cls(pictures)

    def ask(self, number: int, stored: Sequence[str]) -> Ask:
        """The request of that number; some ask again for one of the results that are `stored`."""
        chance = Random(number)
        kind = chance.random()
        if kind < HOSTILE:
            return _hostile(chance, self.pictures[chance.choice(list(self.pictures)[:3])])
        if kind < HOSTILE + OTHER:
            path = chance.choice(PLAIN)
            return Ask(path, "GET", path, {})
        if kind < HOSTILE + OTHER + AGAIN and stored:
            path = f"{stored[chance.randrange(len(stored))]}/{chance.choice(VIEWS)}"
            return Ask("a result again", "GET", path, {}, may_fail=True)  # it may be forgotten or evicted
        size = chance.choices(list(self.pictures), [SIZES[size] for size in self.pictures])[0]
        return _segment(chance, chance.choice(self.pictures[size]))


def _segment(chance: Random, picture: Picture) -> Ask:
    parameters: dict[str, str] = {"output": chance.choice(VIEWS)}
    if store := chance.choice(["", "true", "false"]):
        parameters["store"] = store
    body = _raw(picture) if chance.random() < 0.5 else {"files": {"image": ("p", picture.content, picture.kind)}}
    return Ask(f"{picture.what} as {parameters}", "POST", "/segment", {"params": parameters, **body})


def _raw(picture: Picture) -> dict[str, Any]:
    return {"content": picture.content, "headers": {"Content-Type": picture.kind}}


def _hostile(chance: Random, pictures: Sequence[Picture]) -> Ask:
    """What is no picture, only a part of one, or asked for wrongly."""
    picture, number = chance.choice(pictures), chance.randrange(10**6)
    end = chance.randrange(12, len(picture.content) * 9 // 10)
    cut = (f"{picture.what} cut at {end}", "/segment", picture.kind, picture.content[:end])
    ways = [
        *(cut, cut, cut),
        ("a bomb", "/segment", "image/png", png_bomb(chance.randrange(10_000, 60_000))),
        ("noise", "/segment", "image/jpeg", b"\xff\xd8\xff" + chance.randbytes(chance.randrange(1, 50_000))),
        ("text", "/segment", "image/png", b"this is no picture\n" * chance.randrange(1, 1000)),
        ("text that says so", "/segment", "text/plain", b"no picture"),
        ("nothing", "/segment", "image/png", b""),
        ("a parameter that is none", f"/segment?p{number}=1", picture.kind, picture.content),
        ("a model that is not there", f"/segment?model=m{number}", picture.kind, picture.content),
        ("a path that is not there", f"/no/{number}", picture.kind, picture.content),
    ]
    what, path, kind, content = chance.choice(ways)
    return Ask(what, "POST", path, _raw(Picture(what, kind, content)), may_succeed=False, may_fail=True)


def png_bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels, with hardly any data behind that."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(side * 3 + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
