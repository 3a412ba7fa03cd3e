"""`segserve-export`: trained nets and foreign graphs in, proved bundles out."""

from __future__ import annotations

import click

from export.commands.net import net


@click.group()
def main() -> None:
    """Turn trained segmentation nets into bundles that the service proves and serves."""


main.add_command(net)
