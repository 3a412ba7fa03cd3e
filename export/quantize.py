"""A bundle in, the same with a variant in reduced precision out; or an error, and the bundle as it was. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from export.calibrate import Method, ranges, read_spread, usual_method
from export.compare import TOLERANCE, Proof
from export.errors import ExportError
from export.half import to_half
from export.int8 import OPERATORS, convolutions, preprocess, to_int8
from export.labelled import Labelled
from export.pair import Pair, mask_of
from export.reproduce import golden_min, speedup
from export.revision import revision
from export.sensitivity import Choice, Layers, choose
from export.variants import with_variants
from service.bundle import open_bundle
from service.errors import BundleError
from service.golden import Golden
from service.graph import Graph
from service.manifest import GOLDEN, MANIFEST, Check, Manifest, Variant, read_manifest
from service.segmenter import Segmenter

Pictures = Sequence[NDArray[np.uint8]]
Say = Callable[[str], None]

FEW = 4
"""Held-out pictures that a choice of layers is measured on."""

CARD = "README.md"


@dataclass(frozen=True)
class Wish:
    """The variant that is asked for, what it is calibrated and measured on, and what it may cost.

    `images` is a folder of pictures, `labelled` a data folder with `split`. `max_miou_drop` is in points; `agreement`
    is what is enough to keep no further layer float, `keep_float` a number of layers instead; below `min_agreement` the
    variant is refused. `reduce_range`: int8 weights of 7 bits.
    """

    precision: Literal["int8", "fp16"]
    id: str
    providers: tuple[str, ...]
    images: Path | None = None
    labelled: Path | None = None
    split: str = "val"
    max_miou_drop: float = 1.0
    min_agreement: float = 0.9
    agreement: float = 0.995
    keep_float: int | None = None
    calibration: Method | None = None
    reduce_range: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Quantized:
    """The new variant, how many convolutions it has in int8, which stay float and why, and what was measured."""

    variant: Variant
    check: Check
    choice: Choice | None
    measured: dict[str, Any]


@dataclass(frozen=True)
class _Work:
    """What the steps share: a copy of the bundle, its manifest, the reference graph, and the pictures."""

    folder: Path
    manifest: Manifest
    wish: Wish
    golden: Golden
    calibration: Pictures
    held_out: Pictures
    say: Say

    @property
    def file(self) -> str:
        return f"model.{self.wish.id}.onnx"

    def graph(self, file: str, any_size: bool = False) -> Graph:
        return Graph(self.folder / file, self.manifest, ("cpu",), any_size=any_size)

    @property
    def reference(self) -> Graph:
        return self.graph(self.manifest.reference.file)


def quantize(folder: Path, wish: Wish, say: Say) -> Quantized:
    """Add the variant to the bundle in `folder`; `say` is told what is being done.

    Raises ExportError, BundleError, ValueError or OSError where it cannot be, or costs too much; the bundle is then as
    it was.
    """
    manifest = read_manifest(folder)
    _check_wish(folder, manifest, wish)
    labelled = Labelled.open(wish.labelled, wish.split, manifest) if wish.labelled else None
    calibration, held_out = read_spread(wish.images) if wish.images else ([], [])
    open_bundle(folder.resolve(), ("cpu",), manifest.reference.id)
    with revision(folder) as copy:
        work = _Work(copy, manifest, wish, Golden.load(copy / GOLDEN), calibration, held_out, say)
        try:
            choice = _reduce(work)
            done = _measured(work, choice, labelled)
            _write(work, done)
        except BundleError as error:
            reason = " ".join(str(error).replace(f"{copy}/", "").split())
            raise ExportError(f"the service would refuse the variant: {reason}") from error
    return done


def _check_wish(folder: Path, manifest: Manifest, wish: Wish) -> None:
    reference, others = manifest.reference, manifest.variants[1:]
    if reference.precision != "fp32":
        raise ExportError(f"{folder}: the reference is {reference.precision}; only an fp32 graph can be reduced")
    if wish.id == reference.id:
        raise ExportError(f"{folder}: {wish.id} is the reference, which the others are measured against: choose --id")
    if not wish.overwrite and wish.id in [variant.id for variant in others]:
        raise ExportError(f"{folder} has a variant {wish.id} already: --overwrite replaces it, --id names another")
    if not (folder / GOLDEN).exists():
        raise ExportError(f"{folder} has no {GOLDEN}, which a variant is proved with: `segserve-export` writes one")


def _reduce(work: _Work) -> Choice | None:
    """Write the reduced graph; of int8, the choice of layers is returned."""
    source, target = work.folder / work.manifest.reference.file, work.folder / work.file
    if work.wish.precision == "fp16":
        to_half(source, target)
        return None
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        preprocess(source, prepared)
        layers = convolutions(onnx.load(prepared))
        if not layers:
            raise ExportError("the graph has no convolution with constant weights but the last: int8 gains nothing")
        method = work.wish.calibration or usual_method(work.manifest.input, work.calibration)
        work.say(f"calibrating on {len(work.calibration)} pictures ({method}), {len(layers)} convolutions")
        found = ranges(prepared, work.calibration, work.manifest.input, OPERATORS, method)
        trial, pictures = Path(folder) / "trial.onnx", work.held_out[:FEW]
        wanted = [_mask(work, work.reference, picture) for picture in pictures]

        def measure(reduced: Layers) -> float:
            to_int8(prepared, trial, found, reduced, work.wish.reduce_range)
            graph = Graph(trial, work.manifest, ("cpu",))
            same = [_mask(work, graph, one) == mask for one, mask in zip(pictures, wanted, strict=True)]
            return float(sum(part.sum() for part in same) / sum(part.size for part in same))

        choice = choose(layers, measure, work.wish.agreement, work.wish.keep_float)
        if not choice.reduced:
            raise ExportError("every convolution stays float: nothing is left of int8; lower --keep-float")
        to_int8(prepared, target, found, choice.reduced, work.wish.reduce_range)
    return choice


def _mask(work: _Work, graph: Graph, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return Segmenter(work.manifest, graph)(picture).coarse


def _measured(work: _Work, choice: Choice | None, labelled: Labelled | None) -> Quantized:
    """The variant, compared with the reference. Raises ExportError where it costs too much."""
    wish, manifest = work.wish, work.manifest
    reference, graph = work.reference, work.graph(work.file)
    pictures = {"golden picture": work.golden.picture}
    pictures |= {f"picture {number}": picture for number, picture in enumerate(work.held_out, 1)}
    anywhere = work.graph(manifest.reference.file, any_size=True)
    elsewhere = work.graph(work.file, any_size=True)
    pair = Pair(anywhere, graph, manifest.input, manifest.output, TOLERANCE[wish.precision], elsewhere)
    proof = Proof.of(pair.over(pictures), len(pictures))
    _at_least(proof.agreement, wish)
    speed = speedup(reference, graph, manifest.input, work.golden.picture) if "cpu" in wish.providers else None
    measured: dict[str, Any] = {"speed": speed, "kept_float": _kept(choice)}
    if labelled is not None:
        work.say(f"scoring {len(labelled.pairs)} labelled pictures")
        measured |= _miou(work, reference, graph, labelled)
    check = Check(
        argmax_agreement=proof.agreement,
        max_abs_diff=proof.max_abs_diff,
        images=proof.pictures,
        sizes=proof.sizes,
        versions={package: version(package) for package in ("onnx", "onnxruntime")},
        min_agreement=wish.min_agreement,
        warnings=_warnings(work, labelled),
    )
    variant = Variant(
        id=wish.id,
        file=work.file,
        precision=wish.precision,
        lowering=manifest.reference.lowering,
        providers=wish.providers,
        golden_min=golden_min(graph, work.folder / work.file, manifest, work.golden.picture),
        check=check,
    )
    return Quantized(variant, check, choice, measured)


def _at_least(agreement: float, wish: Wish) -> None:
    if agreement < wish.min_agreement:
        may_saturate = wish.precision == "int8" and not wish.reduce_range
        raise ExportError(
            f"the variant agrees with the reference at {agreement:.4%} of the pixels, {wish.min_agreement:.4%} are "
            f"needed: {'--reduce-range where this CPU has no VNNI, ' if may_saturate else ''}--labelled says what that "
            "costs in mIoU, --keep-float and --agreement keep more layers float, --min-agreement lowers the bar"
        )


def _miou(work: _Work, reference: Graph, graph: Graph, labelled: Labelled) -> dict[str, Any]:
    segmenters = {name: Segmenter(work.manifest, one) for name, one in (("reference", reference), ("reduced", graph))}
    found = labelled.miou(segmenters)
    drop = 100 * (found["reference"] - found["reduced"])
    if drop > work.wish.max_miou_drop:
        raise ExportError(
            f"the variant loses {drop:.2f} points of mIoU ({100 * found['reference']:.2f} to "
            f"{100 * found['reduced']:.2f}), at most {work.wish.max_miou_drop:.2f} are allowed: --keep-float and "
            "--agreement keep more layers float, --max-miou-drop raises the limit"
        )
    return {
        "miou": found["reduced"],
        "reference_miou": found["reference"],
        "miou_drop": drop,
        "protocol": f"{len(labelled.pairs)} {work.wish.split} pictures, masks at their own size, one confusion matrix",
    }


def _kept(choice: Choice | None) -> list[str]:
    if choice is None:
        return []
    return [f"{name} ({group.cost:.2%})" for group in choice.kept for name in group.layers]


def _warnings(work: _Work, labelled: Labelled | None) -> tuple[str, ...]:
    warnings = []
    if labelled is None:
        warnings.append("its cost in mIoU was not measured: --labelled names a data folder to measure it on")
    if work.wish.precision == "fp16":
        warnings.append(
            "compared on the CPU, which computes float16 in float32 between casts: that shows what the rounded weights "
            "and values cost, not what a GPU's kernels add; `segserve-export verify --provider` shows it on the GPU"
        )
    return tuple(warnings)


def _write(work: _Work, done: Quantized) -> None:
    """The golden mask, the card and `model.json` last; opened as the service would before and after."""
    manifest, wish, graph = work.manifest, work.wish, work.graph(work.file)
    others = tuple(variant for variant in manifest.variants if variant.id != wish.id)
    mask = mask_of(Segmenter(manifest, graph), work.golden.picture)
    Golden(work.golden.picture, {**work.golden.masks, wish.id: mask}).save(work.folder / GOLDEN)
    if work.file in [variant.file for variant in others]:
        raise ExportError(f"{work.file} is another variant's file: choose another --id")
    in_use = {MANIFEST, work.file, *(variant.file for variant in others)}
    for variant in manifest.variants:
        if variant.file not in in_use:
            (work.folder / variant.file).unlink(missing_ok=True)
    sha256 = {name: known for name, known in manifest.sha256.items() if (work.folder / name).exists()}
    sha256 |= {name: _sha256(work.folder / name) for name in (work.file, GOLDEN)}
    measured = {**manifest.metrics.get("variants", {}), wish.id: done.measured}
    here = done.variant.model_copy(update={"providers": ("cpu",)})
    update = {"variants": (*others, here), "sha256": sha256, "metrics": {**manifest.metrics, "variants": measured}}
    (work.folder / MANIFEST).write_text(manifest.model_copy(update=update).to_json())
    open_bundle(work.folder, ("cpu",), wish.id)
    final = manifest.model_copy(update=update | {"variants": (*others, done.variant)})
    card = work.folder / CARD
    card.write_text(with_variants(card.read_text() if card.exists() else f"# {manifest.name}\n", final))
    (work.folder / MANIFEST).write_text(final.to_json())
    open_bundle(work.folder, ("cpu",), manifest.reference.id)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
