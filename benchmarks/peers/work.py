"""A picture's bytes in, its mask or overlay as bytes out: what a tutorial does between the request and the answer.

Needs numpy, Pillow and onnxruntime alone, so that every peer can import it. Class ids are enlarged, not scores: faster,
and jagged at the borders.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

Image.MAX_IMAGE_PIXELS = None


class Work:
    """One ONNX file (`MODEL`, with `PALETTE` beside it) in a session of `THREADS` threads."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.palette = np.array(json.loads(Path(os.environ["PALETTE"]).read_text()), np.uint8)
        self.height, self.width = 360, 480

    def __call__(self, data: bytes, output: str) -> bytes:
        """Decode, run, enlarge, encode."""
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        small = picture if picture.size == (self.width, self.height) else picture.resize((self.width, self.height))
        (scores,) = self.session.run(None, {"image": np.asarray(small)[None]})
        mask = Image.fromarray(scores[0].argmax(axis=0).astype(np.uint8))
        if mask.size != picture.size:
            mask = mask.resize(picture.size, Image.Resampling.NEAREST)
        if output == "mask":
            return self._encoded(mask, "PNG", compress_level=1)
        color: NDArray[np.uint8] = self.palette[np.asarray(mask)]
        blended = (np.asarray(picture) * 0.5 + color * 0.5).astype(np.uint8)
        return self._encoded(Image.fromarray(blended), "JPEG", quality=85)

    @staticmethod
    def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()


def media_type(output: str) -> str:
    """Of the answer."""
    return "image/png" if output == "mask" else "image/jpeg"
