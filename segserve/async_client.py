"""Pictures in, their segmentations out, over HTTP, for asyncio; the same calls as `segserve.client`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

import httpx
import numpy as np
from numpy.typing import NDArray

from segserve import results
from segserve.answers import File, ModelRecord
from segserve.flow import Flow, Heard, Step, Wait
from segserve.pictures import PictureLike, picture_bytes
from segserve.results import Described, ImageFormat, Words, shown
from segserve.retry import Patience
from segserve.transport import Address, reply

T = TypeVar("T")


class Runner(Protocol):
    """Carries a conversation out."""

    def __call__(self, flow: Flow[T], /) -> Awaitable[T]:
        """The conversation's result."""


@dataclass(frozen=True)
class AsyncSegmentation(Described):
    """A segmented picture; what `Segmentation` is, with views that are awaited."""

    run: Runner = field(repr=False)

    async def mask(self) -> NDArray[np.uint8]:
        """The class id of every pixel, uint8 (H, W)."""
        return await self.run(self.result.mask())

    async def confidence(self) -> NDArray[np.uint8]:
        """How sure the net is of every pixel, 0 to 255, uint8 (H, W)."""
        return await self.run(self.result.confidence())

    async def color(self) -> File:
        """The mask as a palette PNG: index = class id, in the model's colours."""
        return await self.run(self.result.file("color", {}))

    async def overlay(
        self,
        alpha: float | None = None,
        format: ImageFormat | None = None,  # noqa: A002 - the name of the parameter
        classes: Words | None = None,
    ) -> File:
        """The picture tinted by class, as `Segmentation.overlay`."""
        return await self.run(self.result.file("overlay", shown(alpha, format, classes)))

    async def rle(self, classes: Words | None = None) -> dict[str, Any]:
        """Each class as a run-length encoding as COCO's tools read it."""
        return await self.run(self.result.shapes("rle", shown(classes=classes)))

    async def polygons(
        self, min_area: int | None = None, simplify: float | None = None, classes: Words | None = None
    ) -> dict[str, Any]:
        """Each class as polygons with holes, as `Segmentation.polygons`."""
        asked = shown(classes=classes, min_area=min_area, simplify=simplify)
        return await self.run(self.result.shapes("polygons", asked))

    async def geojson(
        self, min_area: int | None = None, simplify: float | None = None, classes: Words | None = None
    ) -> dict[str, Any]:
        """A FeatureCollection with one MultiPolygon a class, as `Segmentation.geojson`."""
        asked = shown(classes=classes, min_area=min_area, simplify=simplify)
        return await self.run(self.result.shapes("geojson", asked))

    async def zip(self, classes: Words | None = None) -> File:
        """A zip with a PNG of 0 and 255 for each class, and `classes.json`."""
        return await self.run(self.result.file("zip", shown(classes=classes)))

    async def view(
        self,
        view: str,
        *,
        alpha: float | None = None,
        format: ImageFormat | None = None,  # noqa: A002 - the name of the parameter
        classes: Words | None = None,
    ) -> File:
        """A view by its name (docs/api.md lists them), as the service answers it."""
        return await self.run(self.result.file(view, shown(alpha, format, classes)))

    async def forget(self) -> None:
        """Make the service forget the result, if it keeps one."""
        await self.run(self.result.forget())


class AsyncClient:
    """A client of the service at `url`, for one event loop; arguments and errors are those of `Client`.

    async with AsyncClient("http://localhost:8000") as client:
        seen = await client.segment("street.jpg")
        (await seen.overlay(alpha=0.6)).save("out.jpg")
    """

    def __init__(
        self,
        url: str = "http://localhost:8000",
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        self._address = Address.of(url, key)
        self._patience = Patience(timeout, retries)
        self._http = httpx.AsyncClient()

    async def segment(
        self, picture: PictureLike, model: str | None = None, version: int | None = None, store: bool = True
    ) -> AsyncSegmentation:
        """Segment a picture, as `Client.segment`; a file is read, and an array encoded, in a thread."""
        content = await asyncio.to_thread(picture_bytes, picture)
        flow = results.segment(content, model, version, store, self._patience)
        return AsyncSegmentation(await self._run(flow), self._run)

    async def models(self) -> tuple[ModelRecord, ...]:
        """The models that are served. Raises Refused or Unreachable."""
        return await self._run(results.models(self._patience))

    async def ready(self) -> bool:
        """Whether the service answers that it is ready; asked once, False also where nobody answers."""
        return await self._run(results.ready(self._patience.timeout))

    async def close(self) -> None:
        """Close the connections; the client and its segmentations can then ask no more."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, flow: Flow[T]) -> T:
        heard: Heard = None
        while True:
            try:
                step = flow.send(heard)
            except StopIteration as end:
                return cast("T", end.value)
            heard = await self._take(step)

    async def _take(self, step: Step) -> Heard:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return reply(await self._http.send(self._address.request(step)))
        except httpx.HTTPError as error:
            return self._address.silence(error)
