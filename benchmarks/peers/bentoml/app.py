"""BentoML: `bentoml serve app:Segment`."""

import os
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from work import Work


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 300})
class Segment:
    """One worker."""

    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api(route="/segment")
    def segment(self, image: Path, output: str) -> Annotated[bytes, ContentType("application/octet-stream")]:
        """The picture's work."""
        return self.work(image.read_bytes(), output)
