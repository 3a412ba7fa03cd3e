"""A trained net in, a proved bundle in the model folder out; or an error, and nothing in the model folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from export.card import model_card
from export.compare import EACH, Proof
from export.convert import convert
from export.draft import Terms, draft
from export.errors import ExportError
from export.lowering import Choice, Lowering, Provider
from export.prove import prove
from export.refusal import first_line
from export.rewrite import Prelu
from export.source import Candidate, TrainedNet
from export.speed import Speed
from service.errors import BundleError
from service.golden import Golden
from service.graph import Graph, Net
from service.manifest import GOLDEN, GOLDEN_MIN, MANIFEST, Check, InputSpec, Manifest, Variant
from service.segmenter import Segmenter

MODEL = "model.onnx"
WEIGHTS = "weights.safetensors"
FEW_CLASSES = 3
"""A golden answer with fewer classes proves little."""

LARGEST_MULTIPLE = 512
"""A graph that fails at squares of this side and all shorter ones is refused."""


@dataclass(frozen=True)
class Bar:
    """What a graph has to reach: a share of the pixels, of the golden picture and of others, uint8 (H, W, 3); how its
    unpoolings and PReLUs are to be written, and for which execution provider."""

    golden: NDArray[np.uint8]
    pictures: Sequence[NDArray[np.uint8]] = ()
    min_agreement: float = 0.9999
    lowering: Choice = "auto"
    provider: Provider = "cpu"
    prelu: Prelu = "exact"


@dataclass(frozen=True)
class Exported:
    """A bundle in its place, how it was proved, how its unpoolings were written, and what it takes and why no more."""

    folder: Path
    check: Check
    lowering: Lowering
    input: InputSpec
    why: str


def export_bundle(trained: TrainedNet, target: Path, terms: Terms, bar: Bar) -> Exported:
    """Write the bundle `target`/<next version>/, where `target` is models/NAME.

    Raises ExportError where the net cannot be exported, or the graph agrees with PyTorch at fewer pixels than the bar.
    """
    with draft(target) as folder:
        found = _first_right(folder, trained, terms, bar)
        _write(folder, trained, terms, found)
    return Exported(target / folder.name, found.check, found.lowering, found.manifest.input, found.why)


@dataclass(frozen=True)
class _Proved:
    """A graph that passed, in words and numbers."""

    manifest: Manifest
    lowering: Lowering
    proof: Proof
    check: Check
    golden: Golden
    why: str


def _first_right(folder: Path, trained: TrainedNet, terms: Terms, bar: Bar) -> _Proved:
    """The first of the net's candidates whose graph, in `folder`, is right."""
    failure: Exception | None = None
    for candidate in trained.candidates:
        try:
            why = candidate.why if failure is None else f"with free sides, {first_line(failure)}"
            return _proved(folder, trained, candidate, terms, bar, why)
        except (ExportError, BundleError) as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _proved(folder: Path, trained: TrainedNet, candidate: Candidate, terms: Terms, bar: Bar, why: str) -> _Proved:
    """The candidate's graph, compared with PyTorch."""
    notes = {
        "name": folder.parent.name,
        "classes": json.dumps([spec.name for spec in trained.classes]),
        "palette": json.dumps([spec.color for spec in trained.classes]),
    }
    lowering = convert(candidate.program, folder / MODEL, bar.lowering, bar.provider, notes, bar.prelu)
    # Every form runs on the CPU provider too, which is where it is proved.
    providers = tuple(dict.fromkeys((bar.provider, "cpu")))
    manifest = Manifest(
        name=folder.parent.name,
        version=int(folder.name),
        description=terms.description,
        license=terms.license,
        input=candidate.input,
        output=candidate.output,
        classes=trained.classes,
        ignore=trained.ignore,
        variants=(
            Variant(
                id="fp32",
                file=MODEL,
                lowering=lowering.name,
                providers=providers,
                golden_min=min(GOLDEN_MIN, bar.min_agreement),
            ),
        ),
        metrics=trained.metrics,
    )
    graph, elsewhere = (Graph(folder / MODEL, manifest, ("cpu",), any_size=free) for free in (False, True))
    if candidate.input.fit == "native":
        manifest = manifest.model_copy(
            update={"input": _with_right_multiple(candidate.input, trained.reference, graph)}
        )
    pictures = [bar.golden, *bar.pictures]
    proof = prove(trained.reference, graph, manifest.input, pictures, manifest.output, elsewhere)
    if proof.agreement < bar.min_agreement:
        raise ExportError(
            f"the graph agrees with PyTorch at {proof.agreement:.4%} of {proof.pixels} pixels (largest difference of a "
            f"logit {proof.max_abs_diff:.3g}), {bar.min_agreement:.4%} are needed; --min-agreement may lower the bar"
        )
    if proof.least < min(EACH, bar.min_agreement):
        raise ExportError(
            f"the graph agrees with PyTorch at only {proof.least:.4%} of the pixels of {proof.where}: it is wrong "
            "there, however well it agrees elsewhere"
        )
    variant = manifest.reference
    golden = Golden(bar.golden, {variant.id: Segmenter(manifest, trained.reference)(bar.golden).coarse})
    warnings = [*_few_classes(golden.masks[variant.id], manifest), *lowering.warnings]
    speed = Speed.of(graph, manifest.input, bar.golden)
    manifest = manifest.model_copy(update={"metrics": manifest.metrics | {"speed": asdict(speed)}})
    return _Proved(manifest, lowering, proof, proof.check(bar.min_agreement, warnings), golden, why)


def _with_right_multiple(spec: InputSpec, net: Net, graph: Graph) -> InputSpec:
    """The input with the least multiple of its multiple at which the smallest picture, a square of that side, is taken
    by the graph as by the net: operators may differ where feature maps shrink to nothing."""
    side = spec.multiple_of
    while side <= LARGEST_MULTIPLE:
        smallest = np.zeros((1, side, side, spec.depth), np.uint8)
        wanted = net(smallest).scores
        try:
            found = graph(smallest).scores
        except Exception:  # whatever onnxruntime may find
            found = None
        if wanted is not None and found is not None and wanted.shape == found.shape:
            return spec.model_copy(update={"multiple_of": side})
        side *= 2
    raise ExportError(
        f"the graph fails at pictures of up to {LARGEST_MULTIPLE}x{LARGEST_MULTIPLE}, which the net takes"
    )


def _write(folder: Path, trained: TrainedNet, terms: Terms, found: _Proved) -> None:
    """The other files of the bundle, `model.json` last."""
    found.golden.save(folder / GOLDEN)
    files, source = [MODEL, GOLDEN], trained.source
    if trained.state is not None:
        weights = {name: tensor.contiguous() for name, tensor in trained.state.items()}
        (folder / WEIGHTS).write_bytes(save(weights, trained.notes or None))
        files.append(WEIGHTS)
        source = {**source, "weights_sha256": _sha256(folder / WEIGHTS)}
    variant = found.manifest.reference.model_copy(update={"check": found.check})
    manifest = found.manifest.model_copy(
        update={
            "variants": (variant,),
            "source": source,
            "sha256": {name: _sha256(folder / name) for name in files},
        }
    )
    (folder / "LICENSE").write_text(terms.license_text)
    (folder / "README.md").write_text(model_card(manifest))
    (folder / MANIFEST).write_text(manifest.to_json())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _few_classes(mask: NDArray[np.uint8], manifest: Manifest) -> list[str]:
    seen = len(np.unique(mask))
    wanted = min(FEW_CLASSES, len(manifest.classes))
    if seen >= wanted:
        return []
    return [f"the golden answer holds {seen} classes, fewer than {wanted}, and proves little: choose one with --golden"]
