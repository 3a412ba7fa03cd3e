"""A foreign ONNX file in, a bundle in the model folder out; or an error, and nothing in the model folder. No torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.draft import Terms, draft
from export.feeding import Said
from export.foreign import Foreign, take_over
from export.pair import mask_of
from export.reading import Reading, read
from service.golden import Golden
from service.graph import Graph
from service.manifest import GOLDEN, MANIFEST, ClassList, Manifest, Variant
from service.segmenter import Segmenter

MODEL = "model.onnx"
FEW_CLASSES = 3
"""A golden answer with fewer classes proves little."""


@dataclass(frozen=True)
class Adopted:
    """A bundle's folder, its manifest, and what its user should know."""

    folder: Path
    manifest: Manifest
    warnings: tuple[str, ...]


def adopt(
    file: Path, target: Path, classes: ClassList, terms: Terms, said: Said, golden_picture: NDArray[np.uint8]
) -> Adopted:
    """Write the bundle `target`/<next version>/ (`target` is models/NAME) around the graph in `file`.

    Its golden mask is what onnxruntime answers now; there is no `check`, since nothing independent was compared, and so
    it is served as not proved. Raises ExportError where the file cannot be used, or something has to be said.
    """
    with draft(target) as folder:
        foreign = take_over(file, folder / MODEL)
        reading = read(folder / MODEL, said, classes, golden_picture)
        manifest = _manifest(folder, foreign, reading, terms, classes)
        graph = Graph(folder / MODEL, manifest, ("cpu",))
        mask = mask_of(Segmenter(manifest, graph), golden_picture)
        Golden(golden_picture, {manifest.reference.id: mask}).save(folder / GOLDEN)
        manifest = manifest.model_copy(update={"sha256": {name: _sha256(folder / name) for name in (MODEL, GOLDEN)}})
        warnings = _warnings(manifest, said, mask)
        (folder / "LICENSE").write_text(terms.license_text)
        (folder / "README.md").write_text(_card(manifest, warnings))
        (folder / MANIFEST).write_text(manifest.to_json())
    return Adopted(target / folder.name, manifest, warnings)


def _manifest(folder: Path, foreign: Foreign, reading: Reading, terms: Terms, classes: ClassList) -> Manifest:
    variant = Variant(
        id=foreign.precision, file=MODEL, precision=foreign.precision, lowering=foreign.lowering, providers=("cpu",)
    )
    return Manifest(
        name=folder.parent.name,
        version=int(folder.name),
        description=terms.description,
        license=terms.license,
        source=foreign.source,
        input=reading.input,
        output=reading.output,
        classes=reading.classes,
        ignore=classes.ignore,
        variants=(variant,),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _warnings(manifest: Manifest, said: Said, mask: NDArray[np.uint8]) -> tuple[str, ...]:
    warnings = []
    if manifest.input.dtype == "float32" and not said.values("scale", "mean", "std"):
        warnings.append(
            "the graph takes float32 and does not show how values were normalised in training: they are divided by 255 "
            "and no more; --scale, --mean and --std say otherwise"
        )
    seen, wanted = len(np.unique(mask)), min(FEW_CLASSES, len(manifest.classes))
    if seen < wanted:
        warnings.append(f"the golden answer holds {seen} of {len(manifest.classes)} classes: choose one with --golden")
    return tuple(warnings)


def summary(manifest: Manifest) -> str:
    """How a foreign graph was understood, in one line: what to look at first where masks are wrong."""
    spec, output = manifest.input, manifest.output
    free = "any sides" if spec.multiple_of == 1 else f"sides in multiples of {spec.multiple_of}"
    sides = free if spec.height is None else f"{spec.height}x{spec.width}"
    scores = f"{output.logits!r} ({output.activation}, {output.layout})"
    answer = f"class ids {output.labels!r}" if output.logits is None else f"scores {scores}"
    return (
        f"input {spec.name!r} ({spec.dtype}, {spec.layout}, {spec.channels}, {sides}, fit {spec.fit}), "
        f"answer {answer}, {len(manifest.classes)} classes"
    )


def _card(manifest: Manifest, warnings: tuple[str, ...]) -> str:
    source, spec = manifest.source, manifest.input
    changes = ", ".join(source["changes"]) or "none"
    opset = ", ".join(f"{domain} {version}" for domain, version in source["opset"].items())
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (spec.mean, spec.std))
    normalised = (
        "in the graph" if spec.dtype == "uint8" else f"(value / {spec.scale:g} - mean) / std, mean {mean}, std {std}"
    )
    sections = [
        f"# {manifest.name}, version {manifest.version}",
        manifest.description or "No description was given.",
        f"Licence: {manifest.license} (see `LICENSE`).",
        "## Input and answer",
        f"As it was understood (height x width): {summary(manifest)}. Normalisation: {normalised}.",
        f"Classes: {', '.join(spec.name for spec in manifest.classes)}.",
        *(f"Note: {warning}." for warning in warnings),
        "## Proof",
        "None: this is a foreign ONNX file, and there was no PyTorch net to compare it with. `golden.npz` holds what "
        "onnxruntime answered when it was adopted, so that a damaged file or another runtime's other answer shows.",
        "## Source",
        f"`{source['file']}` (sha256 {source['file_sha256']}), made by {source['producer']}; opset {opset}; "
        f"changes: {changes}.",
    ]
    return "\n\n".join(sections) + "\n"
