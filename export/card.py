"""A manifest in, the bundle's README (its model card) out."""

from __future__ import annotations

from service.manifest import InputSpec, Manifest


def model_card(manifest: Manifest) -> str:
    """Markdown: what the model is for, what it takes and answers, how good it is, how it was trained and proved."""
    check = manifest.reference.check
    assert check is not None
    sections = [
        f"# {manifest.name}, version {manifest.version}",
        manifest.description or "No description was given at export.",
        f"Licence: {manifest.license} (see `LICENSE`).",
        "## Input and answer",
        _input(manifest.input),
        f"{len(manifest.classes)} classes: {', '.join(spec.name for spec in manifest.classes)}.",
        "## Quality",
        _quality(manifest),
        *_calibration(manifest),
        *_speed(manifest),
        "## Proof",
        f"The graph `{manifest.reference.file}` (max-unpooling: {manifest.reference.lowering}) answers as PyTorch does "
        f"at {check.argmax_agreement:.4%} of the pixels of {check.images} pictures (input sizes, height x width: "
        f"{', '.join(f'{height}x{width}' for height, width in check.sizes)}); the largest difference of a logit is "
        f"{check.max_abs_diff:.3g}. Versions: {', '.join(f'{k} {v}' for k, v in check.versions.items())}.",
        "## Source",
        _source(manifest),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _input(spec: InputSpec) -> str:
    arithmetic = (
        f"In the graph: {spec.channels}, (value / {spec.scale:g} - {_values(spec.mean)}) / {_values(spec.std)}."
    )
    if spec.fit == "native":
        size = f"shrunk to at most {spec.max_pixels} pixels, sides padded to multiples of {spec.multiple_of}"
    else:
        size = f"brought to {spec.width}x{spec.height} (width x height)"
    return f"Pictures of any size, {size}; fit: {spec.fit}. {arithmetic}"


def _values(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})" if len(set(values)) > 1 else f"{values[0]:g}"


def _quality(manifest: Manifest) -> str:
    miou, iou = manifest.metrics.get("miou"), manifest.metrics.get("iou")
    if miou is None:
        return "Not measured at export."
    text = f"mIoU {miou:.4f} ({manifest.metrics.get('protocol', 'protocol not recorded')})."
    if not iou:
        return text
    rows = [f"| {name} | {'absent' if value is None else f'{value:.4f}'} |" for name, value in iou.items()]
    return "\n".join([text, "", "| class | IoU |", "|---|---|", *rows])


def _calibration(manifest: Manifest) -> list[str]:
    metrics = manifest.metrics
    if "calibration_error" not in metrics:
        return []
    return [
        f"Confidence: expected calibration error {metrics['calibration_error']:.4f} with the temperature "
        f"{manifest.output.temperature:g}, which the service applies, {metrics['calibration_error_raw']:.4f} without "
        "(15 ranges of confidence, the same pictures that it was fitted on)."
    ]


def _speed(manifest: Manifest) -> list[str]:
    speed = manifest.metrics.get("speed")
    if speed is None:
        return []
    return [
        "## Speed",
        f"The net alone, `session.run` in onnxruntime, takes {speed['ms']:g} ms for {speed['width']}x{speed['height']} "
        f"(width x height), median, on {speed['cores']} cores of {speed['processor']}.",
    ]


def _source(manifest: Manifest) -> str:
    recipe = manifest.source.get("recipe")
    text = f"Net: {manifest.source.get('net', 'not recorded')}."
    if recipe is None:
        facts = [(name, value) for name, value in manifest.source.items() if name != "net"]
        return "\n".join([text, *([""] if facts else []), *(f"- {name}: {value}" for name, value in facts)])
    epoch = manifest.metrics.get("epoch")
    rows = [f"| {name} | {value} |" for name, value in recipe.items() if value is not None]
    chosen = f" The weights are those after epoch {epoch}." if epoch else ""
    return "\n".join([text + chosen, "", "| recipe | value |", "|---|---|", *rows])
