"""Pictures in, their segmentations out, over HTTP; each call waits for its answer."""

from __future__ import annotations

import time
import weakref
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

    def __call__(self, flow: Flow[T], /) -> T:
        """The conversation's result."""


@dataclass(frozen=True)
class Segmentation(Described):
    """A segmented picture. What it says of itself is there; each view is asked of the service when it is called for.

    Where the service keeps the result, no net runs for a view; else, or once the result has expired, the picture is
    sent again. Every method raises Refused or Unreachable as `Client.segment` does.
    """

    run: Runner = field(repr=False)

    def mask(self) -> NDArray[np.uint8]:
        """The class id of every pixel, uint8 (H, W)."""
        return self.run(self.result.mask())

    def confidence(self) -> NDArray[np.uint8]:
        """How sure the net is of every pixel, 0 to 255, uint8 (H, W)."""
        return self.run(self.result.confidence())

    def color(self) -> File:
        """The mask as a palette PNG: index = class id, in the model's colours."""
        return self.run(self.result.file("color", {}))

    def overlay(
        self,
        alpha: float | None = None,
        format: ImageFormat | None = None,  # noqa: A002 - the name of the parameter
        classes: Words | None = None,
    ) -> File:
        """The picture tinted by class; `alpha`, 0 to 1, is the palette's share. JPEG for a JPEG, else PNG, unless
        `format` says otherwise."""
        return self.run(self.result.file("overlay", shown(alpha, format, classes)))

    def rle(self, classes: Words | None = None) -> dict[str, Any]:
        """Each class as a run-length encoding as COCO's tools read it."""
        return self.run(self.result.shapes("rle", shown(classes=classes)))

    def polygons(
        self, min_area: int | None = None, simplify: float | None = None, classes: Words | None = None
    ) -> dict[str, Any]:
        """Each class as polygons with holes, corners in pixels, y down. Areas of less than `min_area` pixels are left
        out; `simplify` is by how many pixels outlines may move to have fewer corners."""
        asked = shown(classes=classes, min_area=min_area, simplify=simplify)
        return self.run(self.result.shapes("polygons", asked))

    def geojson(
        self, min_area: int | None = None, simplify: float | None = None, classes: Words | None = None
    ) -> dict[str, Any]:
        """A FeatureCollection with one MultiPolygon a class; the options are those of `polygons`."""
        asked = shown(classes=classes, min_area=min_area, simplify=simplify)
        return self.run(self.result.shapes("geojson", asked))

    def zip(self, classes: Words | None = None) -> File:
        """A zip with a PNG of 0 and 255 for each class, and `classes.json`."""
        return self.run(self.result.file("zip", shown(classes=classes)))

    def view(
        self,
        view: str,
        *,
        alpha: float | None = None,
        format: ImageFormat | None = None,  # noqa: A002 - the name of the parameter
        classes: Words | None = None,
    ) -> File:
        """A view by its name (docs/api.md lists them), as the service answers it."""
        return self.run(self.result.file(view, shown(alpha, format, classes)))

    def forget(self) -> None:
        """Make the service forget the result, if it keeps one."""
        self.run(self.result.forget())


class Client:
    """A client of the service at `url`; may be used by several threads at once.

        with Client("http://localhost:8000") as client:
            seen = client.segment("street.jpg")
            seen.overlay(alpha=0.6).save("out.jpg")

    `key`: an API key, where the service wants one. `timeout`: the seconds that a call may take, repetitions included.
    `retries`: how often a call is repeated that the service is too busy for (429, 503; it waits as long as Retry-After
    says), that a proxy answers in its place (5xx), or whose connection broke. Raises ValueError where one cannot be.
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
        self._http = httpx.Client()
        # For who writes Client(url).segment(...) and keeps neither.
        self._end = weakref.finalize(self, self._http.close)

    def segment(
        self, picture: PictureLike, model: str | None = None, version: int | None = None, store: bool = True
    ) -> Segmentation:
        """Segment a picture: a path, the bytes of an image file, a file open for reading bytes, a PIL image, or RGB as
        uint8 (H, W, 3). `store`: whether the service may keep the result for a while, so that views cost no second run.

        Raises OSError where a file cannot be read, UnusablePicture where `picture` is none, Refused where the service
        answers with an error, Unreachable where it does not answer.
        """
        flow = results.segment(picture_bytes(picture), model, version, store, self._patience)
        return Segmentation(self._run(flow), self._run)

    def models(self) -> tuple[ModelRecord, ...]:
        """The models that are served. Raises Refused or Unreachable."""
        return self._run(results.models(self._patience))

    def model_documents(self) -> dict[str, Any]:
        """The models as the service describes them: the answer to `GET /models`. Raises Refused or Unreachable."""
        return self._run(results.model_documents(self._patience))

    def ready(self) -> bool:
        """Whether the service answers that it is ready; asked once, False also where nobody answers."""
        return self._run(results.ready(self._patience.timeout))

    def close(self) -> None:
        """Close the connections; the client and its segmentations can then ask no more."""
        self._end()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        heard: Heard = None
        while True:
            try:
                step = flow.send(heard)
            except StopIteration as end:
                return cast("T", end.value)
            heard = self._take(step)

    def _take(self, step: Step) -> Heard:
        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        try:
            return reply(self._http.send(self._address.request(step)))
        except httpx.HTTPError as error:
            return self._address.silence(error)
