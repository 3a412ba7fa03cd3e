"""The metrics of a run in, its curves as a picture out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw_curve(records: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG with the loss and, where validated, the val mIoU (0 to 1) over the epochs of `records`."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    scored = [record for record in records if "miou" in record]
    left = figure.subplots()
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("training loss", color="tab:orange")
    left.plot([record["epoch"] for record in records], [record["loss"] for record in records], color="tab:orange")
    right = left.twinx()
    right.set_ylabel("val mIoU", color="tab:blue")
    right.set_ylim(0, 1)
    right.plot([record["epoch"] for record in scored], [record["miou"] for record in scored], "o-", color="tab:blue")
    if scored:
        best = max(scored, key=lambda record: record["miou"])
        right.axhline(best["miou"], color="tab:blue", linewidth=0.5, linestyle="dashed")
        right.set_title(f"val mIoU {best['miou']:.4f} at epoch {best['epoch']}")
    figure.savefig(path, format="png")
