"""`python -m benchmarks.plot RESULTS PICTURE`: the measurements of `make bench` in, bars as a picture out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click
import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

PANELS = (
    ("0.2 MP", "mask", 1, "p50", "0.2 MP, mask, one client: p50, ms"),
    ("0.2 MP", "mask", 8, "rate", "0.2 MP, mask, eight clients: pictures/s"),
    ("12 MP", "mask", 1, "p50", "12 MP, mask, one client: p50, ms"),
    ("12 MP", "overlay", 1, "p50", "12 MP, overlay, one client: p50, ms"),
)
COLORS = {"own": "#2a6f97", "plain": "#a9c9dd"}
LABELS = {"own": "segserve's export", "plain": "torch.onnx.export's"}


@click.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--net", default="enet", show_default=True)
def main(results: Path, picture: Path, net: str) -> None:
    """Draw the medians of a `results.json`."""
    found = [entry for entry in json.loads(results.read_text())["results"] if entry["net"] == net]
    systems = list(dict.fromkeys(entry["system"] for entry in found))
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for axis, (size, view, clients, value, title) in zip(axes.flat, PANELS, strict=True):
        wanted = {"picture": size, "view": view, "clients": clients}
        for offset, file in enumerate(COLORS):
            bars = [_middle(found, {**wanted, "system": system, "file": file}, value) for system in systems]
            places = [index + 0.38 * offset for index in range(len(systems))]
            drawn = axis.barh(places, bars, 0.36, color=COLORS[file], label=LABELS[file])
            axis.bar_label(drawn, fmt="%.0f", padding=2, fontsize=8)
        axis.set_yticks([index + 0.19 for index in range(len(systems))], systems, fontsize=9)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(picture, dpi=110)


def _middle(found: list[dict[str, Any]], wanted: Mapping[str, object], value: str) -> float:
    """The median of one case's rounds; 0 where it was not measured."""
    for entry in found:
        if all(entry[name] == item for name, item in wanted.items()):
            return float(median(one[value] for one in entry["rounds"]))
    return 0.0


if __name__ == "__main__":
    main()
