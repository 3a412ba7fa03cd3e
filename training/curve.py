"""The metrics of a run in, its curves as a picture out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_curve(records: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG with the loss and, where validated, the val mIoU (0 to 1) over the epochs of `records`."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    left = figure.subplots()
    left.set(xlabel="epoch", ylabel="training loss")
    left.plot([record["epoch"] for record in records], [record["loss"] for record in records], color="tab:gray")
    scored = [record for record in records if "miou" in record]
    right = left.twinx()
    right.set(ylabel="val mIoU", ylim=(0, 1))
    right.plot([record["epoch"] for record in scored], [record["miou"] for record in scored], "o-", color="tab:blue")
    if scored:
        best = max(scored, key=lambda record: record["miou"])
        right.annotate(f"{best['miou']:.4f}", (best["epoch"], best["miou"]), (0, 8), textcoords="offset points")
    figure.savefig(path, format="png")
