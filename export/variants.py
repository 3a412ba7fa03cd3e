"""A model card and a manifest in, the card with a section about the reduced precisions out."""

from __future__ import annotations

import re
from typing import Any

from service.manifest import Manifest, Variant

TITLE = "## Variants"
SECTION = re.compile(rf"^{TITLE}$.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def with_variants(card: str, manifest: Manifest) -> str:
    """The card with its section about variants replaced, or appended."""
    section = _section(manifest)
    if SECTION.search(card):
        return SECTION.sub(lambda _: f"{section}\n", card, count=1).rstrip() + "\n"
    return f"{card.rstrip()}\n\n{section}"


def _section(manifest: Manifest) -> str:
    reference, measured = manifest.reference.id, manifest.metrics.get("variants", {})
    rows = [_row(variant, measured.get(variant.id, {})) for variant in manifest.variants[1:]]
    columns = ("variant", "file", "for", f"same class as {reference}", "mIoU, points lost", "speed", "stays float")
    notes = [
        f"- {variant.id}: {warning}."
        for variant in manifest.variants[1:]
        for warning in (variant.check.warnings if variant.check else ())
    ]
    return (
        "\n".join(
            [
                TITLE,
                "",
                f"| {' | '.join(columns)} |",
                "|---" * len(columns) + "|",
                *rows,
                *([""] if notes else []),
                *notes,
            ]
        )
        + "\n"
    )


def _row(variant: Variant, measured: dict[str, Any]) -> str:
    agreement = "not measured" if variant.check is None else f"{variant.check.argmax_agreement:.3%}"
    miou = measured.get("miou")
    quality = "not measured" if miou is None else f"{miou:.4f}, {measured['miou_drop']:.2f}"
    speed = measured.get("speed")
    kept = measured.get("kept_float") or ["nothing that could be reduced"]
    cells = (
        variant.id,
        f"`{variant.file}`",
        ", ".join(variant.providers),
        agreement,
        quality,
        "not measured" if speed is None else f"{speed:.2f}",
        ", ".join(kept),
    )
    return f"| {' | '.join(cells)} |"
