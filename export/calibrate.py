"""A graph and pictures in, the range of values that each of its tensors takes on them out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, TensorsData, create_calibrator

from export.pictures import read_picture
from service.geometry import place
from service.graph import Tensor
from service.manifest import InputSpec
from service.segmenter import prepare

Method = Literal["percentile", "minmax", "entropy"]

METHODS: dict[Method, tuple[CalibrationMethod, dict[str, float]]] = {
    "percentile": (CalibrationMethod.Percentile, {"percentile": 99.99}),
    "minmax": (CalibrationMethod.MinMax, {}),
    "entropy": (CalibrationMethod.Entropy, {}),
}

LARGEST = 1_000_000
"""Pixels of a net's input above which its activations are not held in memory all at once, as histograms want."""

MOST = 128
"""Of a folder, at most this many pictures are read: ranges settle long before."""

EVERY = 4
"""Every fourth picture is held out, to measure on."""

Pictures = list[NDArray[np.uint8]]


class OneTensor(CalibrationDataReader):  # type: ignore[misc]
    """A single input of the graph: onnxruntime keeps what it collects in memory until the reader ends."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self._inputs = iter([{name: tensor}])

    def get_next(self) -> dict[str, Tensor] | None:
        """The input, then None."""
        return next(self._inputs, None)


def read_spread(folder: Path) -> tuple[Pictures, Pictures]:
    """Pictures of `folder`, evenly spread over their names: those to calibrate on, and those held out to measure on.

    Raises ValueError where there are none or a file is no picture. Of fewer than four, all serve for both.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise ValueError(f"{folder} holds no pictures")
    chosen = files if len(files) <= MOST else [files[index * len(files) // MOST] for index in range(MOST)]
    pictures = [read_picture(path) for path in chosen]
    held_out = pictures[EVERY - 1 :: EVERY]
    return (
        ([one for index, one in enumerate(pictures, 1) if index % EVERY], held_out)
        if held_out
        else (
            pictures,
            pictures,
        )
    )


def ranges(
    path: Path, pictures: Sequence[NDArray[np.uint8]], spec: InputSpec, operators: Sequence[str], method: Method
) -> TensorsData:
    """The range of each tensor around the `operators` of the graph in `path`, on pictures prepared as the service
    prepares them."""
    kind, options = METHODS[method]
    with TemporaryDirectory() as folder, quiet():
        calibrator: Any = create_calibrator(
            path, list(operators), str(Path(folder) / "augmented.onnx"), kind, extra_options=options
        )
        for picture in pictures:
            for placement in place(spec, *cast("tuple[int, int]", picture.shape[:2])):
                calibrator.collect_data(OneTensor(spec.name, prepare(picture, placement, spec)))
        return calibrator.compute_data()


def usual_method(spec: InputSpec, pictures: Sequence[NDArray[np.uint8]]) -> Method:
    """Percentiles, which a few far-off values do not widen; of large inputs minimum and maximum, which need no more
    memory than a run does."""
    sizes = [(run.y.canvas, run.x.canvas) for one in pictures for run in place(spec, one.shape[0], one.shape[1])]
    return "percentile" if max(height * width for height, width in sizes) <= LARGEST else "minmax"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence onnxruntime's tools, which print, log and warn of what is no matter."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(4)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(previous)
        ort.set_default_logger_severity(2)
