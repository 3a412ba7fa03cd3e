"""`model.json` in, frozen types out: the one contract between export and service."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from service.errors import BundleError, ParameterError

MANIFEST = "model.json"
GOLDEN = "golden.npz"
MAX_CLASSES = 256

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a model may be called."""

LICENSE = "^[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*$"
"""An SPDX expression without brackets, or a LicenseRef-."""

LabelId = Annotated[int, Field(ge=0, lt=MAX_CLASSES)]

Color = tuple[int, int, int]


class Record(BaseModel):
    """A frozen record whose keys are all known: a misspelt key is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ClassSpec(Record):
    """One class: its id (the logits' channel and the mask's pixel value), name and colour."""

    id: Annotated[int, Field(ge=0, lt=MAX_CLASSES)]
    name: Annotated[str, Field(min_length=1)]
    color: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$", description="RGB as #rrggbb")]
    draw: bool = Field(default=True, description="false: not tinted in overlays (a background)")

    @property
    def rgb(self) -> Color:
        """The colour as three values, 0 to 255."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


class ClassList(Record):
    """A data set's `classes.json`: the classes, and the label ids that are left out of scoring."""

    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1)]
    ignore: tuple[LabelId, ...] = ()

    @model_validator(mode="after")
    def _ids_are_positions(self) -> Self:
        check_classes(self.classes)
        return self

    @property
    def channels(self) -> tuple[ClassSpec, ...]:
        """The classes a net has to tell apart: all up to the last one that is scored."""
        scored = [spec.id for spec in self.classes if spec.id not in self.ignore]
        return self.classes[: max(scored) + 1] if scored else ()

    def fits(self, manifest: Manifest) -> bool:
        """Whether a model can be scored on the data set: its first classes are called as the channels are."""
        return [spec.name for spec in self.channels] == [spec.name for spec in manifest.classes[: len(self.channels)]]


class InputSpec(Record):
    """What the graph takes, and how a picture becomes that: x = (value / scale - mean) / std.

    For a uint8 graph the arithmetic is inside the graph and scale, mean and std only document it.
    """

    name: str = "image"
    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    height: Annotated[int, Field(gt=0)] | None = None
    width: Annotated[int, Field(gt=0)] | None = None
    multiple_of: Annotated[int, Field(gt=0)] = 1
    max_pixels: Annotated[int, Field(gt=0)] = 2_073_600
    fit: Literal["stretch", "letterbox", "native", "tile"] = "stretch"
    anchor: Literal["center", "topleft"] = "center"
    pad_value: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field(
        default=(0, 0, 0), description="the colour around the picture, as RGB"
    )
    overlap: Annotated[int, Field(ge=0)] = 32
    resample: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    channels: Literal["RGB", "BGR", "GRAY"] = "RGB"
    scale: Annotated[float, Field(gt=0)] = 255.0
    mean: tuple[float, ...] = Field(default=(0.0, 0.0, 0.0), description="in the order of `channels`, as is std")
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 1.0, 1.0)

    @property
    def depth(self) -> int:
        """Number of colour channels: 1 for GRAY, else 3."""
        return 1 if self.channels == "GRAY" else 3

    @model_validator(mode="before")
    @classmethod
    def _one_value_for_grey(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("channels") == "GRAY":
            return {"pad_value": (0,), "mean": (0.0,), "std": (1.0,)} | data
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("pad_value", "mean", "std"):
            length = len(getattr(self, name))
            if length not in (1, self.depth):
                raise ValueError(f"{name} has {length} values, but {self.channels} has {self.depth} channels")
        if self.fit == "native":
            if self.height is not None or self.width is not None:
                raise ValueError("fit=native takes sides as they come: height and width must be null")
        elif self.height is None or self.width is None:
            raise ValueError(f"fit={self.fit} needs height and width")
        elif self.fit == "tile" and self.overlap >= min(self.height, self.width):
            raise ValueError(f"overlap {self.overlap} must be smaller than the tile, {self.width}x{self.height}")
        return self


class OutputSpec(Record):
    """What the graph answers: scores (`logits`), class ids computed in the graph (`labels`), or both."""

    logits: str | None = "logits"
    labels: str | None = None
    layout: Literal["NHWC", "NCHW"] = "NCHW"
    activation: Literal["softmax", "sigmoid", "probabilities"] = "softmax"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    align_corners: bool = False
    temperature: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _answers(self) -> Self:
        if self.logits is None and self.labels is None:
            raise ValueError("name at least one output of the graph: logits or labels")
        return self


class Check(Record):
    """How a variant was proved at export: against PyTorch (fp32) or the fp32 variant (a reduced precision)."""

    argmax_agreement: Annotated[float, Field(ge=0, le=1)]
    max_abs_diff: Annotated[float, Field(ge=0)]
    images: Annotated[int, Field(ge=0)]
    sizes: tuple[tuple[int, int], ...] = Field(default=(), description="height, width of the pictures compared")
    versions: dict[str, str] = Field(default_factory=dict, description="of the packages that took part")
    min_agreement: Annotated[float, Field(ge=0, le=1)] = Field(default=0.9999, description="the bar that was set")
    warnings: tuple[str, ...] = ()


GOLDEN_MIN = 0.999
"""Share of the pixels at which a variant has to agree with its golden mask, unless its bundle says another."""


class Variant(Record):
    """One graph of a bundle; the first is the reference."""

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,64}$")]
    file: str
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    lowering: str = Field(default="native", description="how max-unpooling is expressed in the graph")
    providers: tuple[str, ...] = ("cpu",)
    golden_min: Annotated[float, Field(ge=0, le=1)] = GOLDEN_MIN
    check: Check | None = None

    @field_validator("file")
    @classmethod
    def _stays_in_the_folder(cls, value: str) -> str:
        return inside(value)


class Snapshot(Record):
    """What a result says of the model that made it: all that it takes to show it, whatever becomes of the model."""

    name: str
    version: int
    variant: str
    classes: tuple[ClassSpec, ...]

    @property
    def palette(self) -> tuple[Color, ...]:
        """One RGB colour a class, by id."""
        return tuple(spec.rgb for spec in self.classes)

    def class_ids(self, words: Sequence[str]) -> frozenset[int]:
        """The ids of the classes that `words` name, by name or id. Raises ParameterError for a word that names none."""
        by_word = {str(spec.id): spec.id for spec in self.classes} | {spec.name: spec.id for spec in self.classes}
        strange = [word for word in words if word not in by_word]
        if strange:
            known = ", ".join(spec.name for spec in self.classes)
            raise ParameterError(f"{', '.join(strange)}: not among the classes of {self.name}, which are {known}")
        return frozenset(by_word[word] for word in words)


class Manifest(Record):
    """A bundle's `model.json`."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    version: Annotated[int, Field(gt=0)]
    description: str = ""
    license: Annotated[str, Field(pattern=LICENSE, description="an SPDX id or a LicenseRef-")]
    source: dict[str, Any] = Field(default_factory=dict)
    input: InputSpec = InputSpec(height=None, width=None, fit="native")
    output: OutputSpec = OutputSpec()
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    ignore: tuple[LabelId, ...] = ()
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    metrics: dict[str, Any] = Field(default_factory=dict)
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_classes(self.classes)
        ids = [variant.id for variant in self.variants]
        if len(set(ids)) != len(ids):
            raise ValueError(f"variant ids must differ: {ids}")
        for file in self.sha256:
            inside(file)
        return self

    @property
    def reference(self) -> Variant:
        """The variant that the others are measured against."""
        return self.variants[0]

    @property
    def palette(self) -> tuple[Color, ...]:
        """One RGB colour a class, by id."""
        return self.snapshot().palette

    @property
    def score_channels(self) -> frozenset[int]:
        """How many channels the scores may have: one a class; for two classes without softmax, also one in all."""
        classes = len(self.classes)
        one_for_two = classes == 2 and self.output.activation != "softmax"
        return frozenset({classes, 1} if one_for_two else {classes})

    def class_ids(self, words: Sequence[str]) -> frozenset[int]:
        """The ids of the classes that `words` name, by name or id. Raises ParameterError for a word that names none."""
        return self.snapshot().class_ids(words)

    def snapshot(self, variant: str | None = None) -> Snapshot:
        """What a result says of the model, in that variant (by default the reference)."""
        return Snapshot(
            name=self.name, version=self.version, variant=variant or self.reference.id, classes=self.classes
        )

    def to_json(self) -> str:
        """The text of `model.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def check_classes(classes: tuple[ClassSpec, ...]) -> None:
    """Raise ValueError unless the ids are 0, 1, 2, ... in order and the names differ."""
    ids = [spec.id for spec in classes]
    if ids != list(range(len(ids))):
        raise ValueError(f"class ids must be 0, 1, 2, ... in order (a class's id is its channel), not {ids}")
    names = [spec.name for spec in classes]
    if len(set(names)) != len(names):
        raise ValueError(f"class names must differ: {names}")


def inside(file: str) -> str:
    """The relative path `file`, or ValueError where it could leave the bundle's folder."""
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or re.search(r"[\0\\]|^[A-Za-z]:", file):
        raise ValueError(f"{file!r} must be a path inside the bundle's folder")
    return file


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`. Raises BundleError, naming the file and what is wrong in it."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise BundleError(f"{path}: {explain(error)}") from error


def read_classes(path: Path) -> ClassList:
    """A data set's `classes.json`. Raises OSError, or ValueError naming the file and what is wrong in it."""
    try:
        return ClassList.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """A validation error as one line: each place and what is wrong there."""
    return "; ".join(
        ".".join(map(str, item["loc"])) + (": " if item["loc"] else "") + item["msg"].removeprefix("Value error, ")
        for item in error.errors()
    )
