"""`segserve models`: a folder or a server in, a table of its models out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from segserve.answers import ModelRecord, model_record
from segserve.errors import SegserveClientError
from segserve.options import check_place, place_options

HEAD = ("name", "version", "classes", "licence", "proved", "variant", "mIoU")


@click.command()
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print them as GET /models describes them.")
def models(url: str | None, key: str | None, models: Path | None, as_json: bool) -> None:
    """List the models of a folder or of a server; * marks the default one."""
    check_place(url, models)
    try:
        documents, refused = _remote(url, key) if url is not None else _local(models)
        rows = [_row(model_record(entry)) for entry in documents]
    except SegserveClientError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"models": documents}, ensure_ascii=False, indent=1))
    else:
        click.echo("\n".join(_table([HEAD, *rows])))
    for line in refused:
        click.echo(f"refused: {line}", err=True)


def _remote(url: str, key: str | None) -> tuple[Sequence[Mapping[str, Any]], Sequence[str]]:
    from segserve.remote import connect  # noqa: PLC0415 - a folder's models need no HTTP

    with connect(url, key) as client:
        return client.model_documents()["models"], ()


def _local(folder: Path | None) -> tuple[Sequence[Mapping[str, Any]], Sequence[str]]:
    from segserve.local import model_documents  # noqa: PLC0415 - a server's models need no onnxruntime

    return model_documents(folder)


def _row(record: ModelRecord) -> tuple[str, ...]:
    return (
        f"{record.name}{' *' if record.default else ''}",
        str(record.version),
        str(len(record.classes)),
        record.license,
        "yes" if record.proved else "no",
        record.variant,
        "-" if record.miou is None else f"{record.miou:.3f}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
