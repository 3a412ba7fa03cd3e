"""The views that there are, and how the files that hold them are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click
from click.shell_completion import CompletionItem

from segserve.answers import File

ENDINGS: Mapping[str, tuple[str, ...]] = {
    "json": ("json",),
    "mask": ("mask.png",),
    "color": ("color.png",),
    "overlay": ("overlay.png", "overlay.jpg", "overlay.webp"),
    "confidence": ("confidence.png",),
    "rle": ("rle.json",),
    "polygons": ("polygons.json",),
    "geojson": ("geojson",),
    "zip": ("zip",),
}
"""What a view's file may end in, after the picture's name."""


def file_name(stem: str, view: str, file: File) -> str:
    """The name of the file that holds a view of the picture `stem`."""
    endings = ENDINGS[view]
    ending = next((ending for ending in endings if ending.endswith(file.suffix)), endings[0])
    return f"{stem}.{ending}"


def file_names(stem: str, views: Iterable[str]) -> list[str]:
    """Every name that a file with one of these views may have."""
    return [f"{stem}.{ending}" for view in views for ending in ENDINGS[view]]


def parse_views(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """An option's views, separated by commas, each once; None where it was not given.

    Raises click.BadParameter for a word that is none.
    """
    if value is None:
        return None
    words = [word.strip() for word in value.split(",") if word.strip()]
    strange = [word for word in words if word not in ENDINGS]
    if strange or not words:
        message = f"{', '.join(strange) or 'nothing'} is none of {', '.join(ENDINGS)}"
        raise click.BadParameter(message, ctx=ctx, param=param)
    return tuple(dict.fromkeys(words))


def complete_views(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's
    """The views that may follow what is typed already."""
    before, comma, begun = incomplete.rpartition(",")
    taken = before.split(",")
    return [CompletionItem(before + comma + view) for view in ENDINGS if view.startswith(begun) and view not in taken]
