"""A bundle in, whether its graph still answers as PyTorch does out; or as what there is in its stead."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from export.compare import EACH, TOLERANCE, Comparison, Picture, Proof, compare
from export.errors import ExportError
from export.pair import Pair, mask_of
from export.pictures import golden_picture
from export.report import draw, figures, picture_file, write_json
from service.golden import Golden
from service.graph import Answer, Graph, Net
from service.manifest import GOLDEN, Manifest, Variant, read_manifest
from service.segmenter import Segmenter
from service.settings import PROVIDERS

WEIGHTS = "weights.safetensors"
BAR = 0.9999
"""What fp32 has to reach where the manifest records no bar."""


@dataclass(frozen=True)
class Verdict:
    """How far a variant agreed with its reference (`proof`; None where there is none but the golden mask) and with its
    golden mask (`golden`, share of the pixels; None where there is none), and the bars for both; `each` is that of each
    answer alone."""

    variant: str
    provider: str
    reference: str
    bar: float
    each: float
    golden_min: float
    proof: Proof | None
    golden: float | None

    @property
    def holds(self) -> bool:
        """Whether all bars are reached."""
        enough = self.proof is None or (self.proof.agreement >= self.bar and self.proof.least >= self.each)
        return enough and (self.golden is None or self.golden >= self.golden_min)

    def __str__(self) -> str:
        golden = "none" if self.golden is None else f"{self.golden:.4%} ({self.golden_min:.4%} are needed)"
        asked = f"{self.variant} on {self.provider}, compared with {self.reference}: the same class at"
        if self.proof is None:
            return f"{asked} {golden}"
        beyond = self.proof.beyond / max(self.proof.logits, 1)
        if self.proof.least < self.each:
            golden += f"; at {self.proof.where} alone {self.proof.least:.4%} ({self.each:.4%} are needed)"
        return (
            f"{asked} {self.proof.agreement:.4%} of {self.proof.pixels} pixels ({self.bar:.4%} are needed; "
            f"{self.proof.near_ties} near-ties and {self.proof.real} real differences), largest difference of a logit "
            f"{self.proof.max_abs_diff:.3g}, {beyond:.4%} of the logits beyond the tolerance; golden mask: {golden}"
        )


@dataclass
class Report:
    """Collects comparisons as they are made; with a folder, each is drawn into it at once."""

    folder: Path | None
    manifest: Manifest
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, comparison: Comparison, reference: str) -> None:
        """Note one comparison, and draw it."""
        row = figures(comparison) | {"reference": reference}
        if self.folder is not None:
            row["picture"] = picture_file(len(self.rows) + 1, comparison)
            draw(comparison, self.manifest.palette, reference).save(self.folder / row["picture"])
        self.rows.append(row)

    def passing(self, comparisons: Iterator[Comparison], reference: str) -> Iterator[Comparison]:
        """The same comparisons, each noted on its way."""
        for comparison in comparisons:
            self.add(comparison, reference)
            yield comparison

    def finish(self, summary: dict[str, Any]) -> None:
        """Write report.json."""
        if self.folder is not None:
            write_json(self.folder / "report.json", summary | {"comparisons": self.rows})


def verify(
    folder: Path,
    pictures: Mapping[str, Picture],
    provider: str = "cpu",
    variant: str | None = None,
    report: Path | None = None,
) -> Verdict:
    """Compare a variant (by default the reference) of the bundle in `folder` on the execution `provider`.

    `pictures` are compared besides the golden one; `report` is a folder for report.json and one PNG a comparison.
    Raises ExportError or BundleError where there is nothing to compare, or nothing to compare with.
    """
    manifest = read_manifest(folder)
    chosen = _variant(manifest, variant)
    _check_provider(provider)
    for file in (chosen.file, GOLDEN):
        _check_file(folder, file, manifest.sha256.get(file))
    graph, elsewhere = (Graph(folder / chosen.file, manifest, (provider,), any_size=free) for free in (False, True))
    golden = Golden.load(folder / GOLDEN) if (folder / GOLDEN).exists() else None
    net, reference = _reference(folder, manifest, chosen, provider)
    if net is None and (golden is None or chosen.id not in golden.masks):
        raise ExportError(f"{folder} has neither a built-in net's {WEIGHTS} nor a golden mask of {chosen.id}")
    if net is None and pictures:
        raise ExportError(f"{folder} has golden masks alone, which say nothing of other pictures: leave --images out")
    notes, proof, agreement = Report(report, manifest), None, None
    if net is not None:
        every = {"golden picture": golden.picture if golden else golden_picture(None), **pictures}
        pair = Pair(net, graph, manifest.input, manifest.output, TOLERANCE[chosen.precision], elsewhere)
        proof = Proof.of(notes.passing(pair.over(every), reference), len(every))
    if golden is not None and chosen.id in golden.masks:
        found = Answer(None, mask_of(Segmenter(manifest, graph), golden.picture))
        comparison = compare("golden mask", golden.picture, Answer(None, golden.masks[chosen.id]), found)
        notes.add(comparison, "the golden mask")
        agreement = comparison.agreement
    each = min(EACH, _bar(chosen)) if chosen.precision == "fp32" else 0.0
    verdict = Verdict(chosen.id, provider, reference, _bar(chosen), each, chosen.golden_min, proof, agreement)
    notes.finish(_summary(verdict, manifest, chosen))
    return verdict


def _variant(manifest: Manifest, wanted: str | None) -> Variant:
    if wanted is None:
        return manifest.reference
    for variant in manifest.variants:
        if variant.id == wanted:
            return variant
    known = ", ".join(variant.id for variant in manifest.variants)
    raise ExportError(f"{manifest.name} has no variant {wanted!r}: choose one of {known}")


def _check_provider(provider: str) -> None:
    here = [word for word, name in PROVIDERS.items() if name in ort.get_available_providers()]
    if provider not in here:
        raise ExportError(f"{provider} is not in the installed onnxruntime, which has {', '.join(here)}")


def _check_file(folder: Path, file: str, wanted: str | None) -> None:
    if wanted is None:
        return
    try:
        with (folder / file).open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(f"{folder / file} cannot be read: {error.strerror}") from error
    if found != wanted:
        raise ExportError(f"{folder / file} is damaged or another one: its sha256 is {found}, recorded is {wanted}")


def _reference(folder: Path, manifest: Manifest, chosen: Variant, provider: str) -> tuple[Net | None, str]:
    """What the variant is compared with besides its golden mask, and in words."""
    if manifest.source.get("net") and (folder / WEIGHTS).exists():
        for wanted in (manifest.sha256.get(WEIGHTS), manifest.source.get("weights_sha256")):
            _check_file(folder, WEIGHTS, wanted)
        # Imported here: torch is needed only where there may be a net to rebuild.
        from export.rebuild import rebuild  # noqa: PLC0415

        net = rebuild(folder / WEIGHTS, manifest)
        if net is not None:
            return net, "PyTorch"
    reference = manifest.reference
    if (chosen, provider) == (reference, "cpu"):
        return None, "the golden mask"
    _check_file(folder, reference.file, manifest.sha256.get(reference.file))
    return Graph(folder / reference.file, manifest, ("cpu",), any_size=True), f"{reference.id} on cpu"


def _bar(variant: Variant) -> float:
    if variant.check:
        return variant.check.min_agreement
    return BAR if variant.precision == "fp32" else variant.golden_min


def _summary(verdict: Verdict, manifest: Manifest, variant: Variant) -> dict[str, Any]:
    proof = verdict.proof
    return {
        "bundle": f"{manifest.name}/{manifest.version}",
        "variant": verdict.variant,
        "precision": variant.precision,
        "provider": verdict.provider,
        "onnxruntime": ort.__version__,
        "reference": verdict.reference,
        "holds": verdict.holds,
        "agreement": proof and proof.agreement,
        "agreement_needed": verdict.bar,
        "least_agreement": proof and proof.least,
        "least_agreement_needed": verdict.each,
        "golden_agreement": verdict.golden,
        "golden_agreement_needed": verdict.golden_min,
        "near_ties": proof and proof.near_ties,
        "real_differences": proof and proof.real,
        "max_abs_diff": proof and proof.max_abs_diff,
        "tolerance": TOLERANCE[variant.precision],
        "share_beyond_tolerance": proof and proof.beyond / max(proof.logits, 1),
    }
