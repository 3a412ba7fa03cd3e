"""A segmented picture in, what is kept of it out, and back: the bytes that it is rebuilt from, and where they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service import png
from service.errors import ResultsOff, StoreUnavailable, UnknownResult
from service.manifest import Snapshot
from service.segmenter import Segmentation
from service.settings import Settings
from service.store import Store, open_store
from service.upsample import Tally, fill_labels

logger = logging.getLogger(__name__)

OFF = "off"


@dataclass(frozen=True)
class Result:
    """All that any view of a segmented picture is made of: the picture's bytes as they were uploaded, what its classes
    are, and as PNGs the class mask, and at the net's resolution the classes and, if there is one, the confidence."""

    picture: bytes
    model: Snapshot
    mask: bytes
    coarse: bytes
    confidence: bytes | None

    @classmethod
    def of(cls, picture: bytes, segmentation: Segmentation, model: Snapshot, mask: bytes) -> Result:
        """What is kept of a picture; its mask has been drawn for the answer."""
        levels = segmentation.confidence
        confidence = None if levels is None else png.encode(levels)
        return cls(picture, model, mask, png.encode(segmentation.coarse), confidence)

    def pack(self) -> bytes:
        """A zip: `model.json`, `picture`, and the PNGs."""
        file = BytesIO()
        with ZipFile(file, "w") as archive:  # pictures are packed already
            archive.writestr("model.json", self.model.model_dump_json())
            archive.writestr("picture", self.picture)
            archive.writestr("mask.png", self.mask)
            archive.writestr("coarse.png", self.coarse)
            if self.confidence is not None:
                archive.writestr("confidence.png", self.confidence)
        return file.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> Result:
        """The result that `pack` wrote. Raises UnknownResult where the bytes are damaged, as by a power cut."""
        with _undamaged(), ZipFile(BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
            model = Snapshot.model_validate_json(files["model.json"])
            return cls(files["picture"], model, files["mask.png"], files["coarse.png"], files.get("confidence.png"))

    def segmentation(self) -> Segmentation:
        """What the net saw, decoded. Raises UnknownResult where it is damaged."""
        with _undamaged():
            mask = _array(self.mask)
            tally = Tally.of(fill_labels(np.empty_like(mask), (0, 0), mask))
            confidence = None if self.confidence is None else _array(self.confidence)
            return Segmentation(mask, tally, _array(self.coarse), confidence, 0.0, 0.0)


@contextmanager
def _undamaged() -> Iterator[None]:
    """Read what is stored. Raises UnknownResult where it is not as it was written."""
    try:
        yield
    except (BadZipFile, KeyError, OSError, ValueError) as error:
        raise UnknownResult(f"the stored result is damaged ({error}): POST the picture again") from error


def _array(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(png), formats=("PNG",)))


@dataclass(frozen=True)
class Results:
    """Where this deployment keeps results; without a store, `reason` says why none are kept."""

    store: Store | None
    reason: str = OFF

    def require(self) -> Store:
        """The store. Raises ResultsOff or StoreUnavailable where there is none."""
        if self.store is not None:
            return self.store
        if self.reason == OFF:
            raise ResultsOff(
                "this server keeps no results (SEGSERVE_RESULTS=off, or one of several servers without a Redis or a "
                "folder that all share): POST the picture again"
            )
        raise StoreUnavailable("the store of results could not be opened; the server's log says why")


@contextmanager
def open_results(settings: Settings) -> Iterator[Results]:
    """The settings' store of results, or none: one that cannot be opened does not keep the service from segmenting, and
    where a client may be answered by another server next time, a private one would be of no use."""
    if settings.replicated and settings.results is None:
        yield Results(None)
        return
    with ExitStack() as stack:
        try:
            store = stack.enter_context(open_store(settings.results, settings.results_seconds, settings.results_bytes))
        except StoreUnavailable as error:
            logger.error("results are not kept: %s", error)
            yield Results(None, "store unavailable")
        else:
            yield Results(store)
