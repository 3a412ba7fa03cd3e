"""A trained net in, a proved bundle in the model folder out; or an error, and nothing in the model folder."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from export.card import model_card
from export.convert import convert, quiet
from export.errors import ExportError
from export.prove import TorchNet, prove
from export.source import TrainedNet
from export.tracing import ServedNet, trace
from service.bundle import Golden, open_bundle
from service.errors import BundleError
from service.graph import Graph
from service.manifest import GOLDEN, MANIFEST, NAME, Check, Manifest, Variant
from service.segmenter import Segmenter

MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
FEW_CLASSES = 3
"""A golden answer with fewer classes proves little."""


@dataclass(frozen=True)
class Terms:
    """What the exporter cannot see in the weights: the bundle's description, its licence and the licence's text."""

    description: str
    license: str
    license_text: str


def export_bundle(
    trained: TrainedNet,
    target: Path,
    terms: Terms,
    golden_picture: NDArray[np.uint8],
    pictures: Sequence[NDArray[np.uint8]] = (),
    min_agreement: float = 0.9999,
) -> tuple[Path, Check]:
    """Write the bundle `target`/<next version>/ and return its folder and how it was proved.

    `target` is models/NAME; `pictures` (uint8 (H, W, 3)) are compared besides the golden one. Raises ExportError where
    the net cannot be exported, or the graph agrees with PyTorch at less than `min_agreement` of the pixels.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    version = _next_version(target)
    # The draft lies beside its place, so that it can be renamed into it, under a name that the service passes over.
    draft_root = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    try:
        draft = draft_root / target.name / str(version)
        draft.mkdir(parents=True)
        manifest = _write(draft, trained, terms, golden_picture, [golden_picture, *pictures], min_agreement)
        open_bundle(draft, providers=("cpu",))
        target.mkdir(exist_ok=True)
        draft.rename(target / str(version))
    except BundleError as error:
        raise ExportError(f"the service refuses what was exported: {error}") from error
    finally:
        shutil.rmtree(draft_root)
    assert manifest.reference.check is not None
    return target / str(version), manifest.reference.check


def _next_version(target: Path) -> int:
    if not NAME.fullmatch(target.name):
        raise ExportError(f"{target.name!r} is no model name: use letters, digits, '.', '_' and '-'")
    if (target / MANIFEST).exists():
        raise ExportError(f"{target} is a bundle: name the model's folder, {target.parent}; the version is added")
    taken = [int(path.name) for path in target.glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1


def _write(
    folder: Path,
    trained: TrainedNet,
    terms: Terms,
    golden_picture: NDArray[np.uint8],
    pictures: Sequence[NDArray[np.uint8]],
    min_agreement: float,
) -> Manifest:
    """All files of the bundle, `model.json` last."""
    spec = trained.input
    served = ServedNet(trained.net, spec.scale, spec.mean, spec.std).eval()
    example = (spec.height or 6 * trained.stride, spec.width or 8 * trained.stride)
    try:
        with quiet():
            program = trace(served, trained.stride, example)
    except Exception as error:
        raise ExportError(f"torch cannot follow the net: {str(error).strip().splitlines()[0]}") from error
    lowering = convert(program, folder / MODEL)
    variant = Variant(id="fp32", file=MODEL, lowering=lowering.name)
    manifest = Manifest(
        name=folder.parent.name,
        version=int(folder.name),
        description=terms.description,
        license=terms.license,
        input=trained.input,
        classes=trained.classes,
        ignore=trained.ignore,
        variants=(variant,),
        metrics=trained.metrics,
    )
    net = TorchNet(served)
    proof = prove(net, Graph(folder / MODEL, manifest, ("cpu",)), manifest.input, pictures)
    if proof.agreement < min_agreement:
        raise ExportError(
            f"the graph agrees with PyTorch at {proof.agreement:.4%} of {proof.pixels} pixels (largest difference of a "
            f"logit {proof.max_abs_diff:.3g}), {min_agreement:.4%} are needed; --min-agreement may lower the bar"
        )
    golden = Golden(golden_picture, {variant.id: Segmenter(manifest, net)(golden_picture).coarse})
    golden.save(folder / GOLDEN)
    variant = variant.model_copy(update={"check": proof.check(min_agreement, _warnings(golden, variant.id, manifest))})
    weights = {name: tensor.contiguous() for name, tensor in trained.state.items()}
    (folder / WEIGHTS).write_bytes(save(weights, trained.notes or None))
    digests = {name: _sha256(folder / name) for name in (MODEL, GOLDEN, WEIGHTS)}
    source = {**trained.source, "weights_sha256": digests[WEIGHTS]}
    manifest = manifest.model_copy(update={"variants": (variant,), "source": source, "sha256": digests})
    (folder / "LICENSE").write_text(terms.license_text)
    (folder / "README.md").write_text(model_card(manifest))
    (folder / MANIFEST).write_text(manifest.to_json())
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _warnings(golden: Golden, variant: str, manifest: Manifest) -> list[str]:
    seen = len(np.unique(golden.masks[variant]))
    wanted = min(FEW_CLASSES, len(manifest.classes))
    if seen >= wanted:
        return []
    return [f"the golden answer holds {seen} classes, fewer than {wanted}, and proves little: choose one with --golden"]
