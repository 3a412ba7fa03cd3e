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
    """All that any view of a segmented picture is made of: the picture's bytes as they were uploaded, what the net saw
    in it, and what its classes are."""

    picture: bytes
    segmentation: Segmentation
    model: Snapshot

    def pack(self, mask: bytes) -> bytes:
        """A zip: `model.json`, `picture`, and the arrays as PNGs, of which `mask` is the class mask's."""
        seen, file = self.segmentation, BytesIO()
        with ZipFile(file, "w") as archive:  # pictures are packed already
            archive.writestr("model.json", self.model.model_dump_json())
            archive.writestr("picture", self.picture)
            archive.writestr("mask.png", mask)
            archive.writestr("coarse.png", png.encode(seen.coarse))
            if seen.confidence is not None:
                archive.writestr("confidence.png", png.encode(seen.confidence))
        return file.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> Result:
        """The result that `pack` wrote. Raises UnknownResult where the bytes are damaged, as by a power cut."""
        try:
            return cls._read(data)
        except (BadZipFile, KeyError, OSError, ValueError) as error:
            raise UnknownResult(f"the stored result is damaged ({error}): POST the picture again") from error

    @classmethod
    def _read(cls, data: bytes) -> Result:
        with ZipFile(BytesIO(data)) as archive:
            model = Snapshot.model_validate_json(archive.read("model.json"))
            arrays = {name[:-4]: _array(archive.read(name)) for name in archive.namelist() if name.endswith(".png")}
            picture = archive.read("picture")
        mask = arrays["mask"]
        tally = Tally.of(fill_labels(np.empty_like(mask), (0, 0), mask))
        segmentation = Segmentation(mask, tally, arrays["coarse"], arrays.get("confidence"), 0.0, 0.0)
        return cls(picture, segmentation, model)


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
