"""`segserve-export`: trained nets and foreign graphs in, bundles out; a command is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

COMMANDS: Mapping[str, tuple[str, str]] = {
    "adopt": ("export.commands.adopt", "Make a bundle of a foreign ONNX file."),
    "net": ("export.commands.net", "Export a net with trained weights."),
    "quantize": ("export.commands.quantize", "Add a variant in int8 or float16 to a bundle."),
    "verify": ("export.commands.verify", "Compare a bundle's graph with its reference again."),
}
"""Each command: the module that holds it, under its own name, and what it does.

Said here, so that neither the list of commands nor a command that needs no torch imports torch."""


class LazyGroup(click.Group):
    """A group that imports only the command that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(import_module(module), cmd_name)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"{cmd_name} needs the package {error.name}: install the tools with `make tools`, or `segserve[export]`"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, none of which is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup)
def main() -> None:
    """Turn trained segmentation nets into bundles that the service proves and serves."""
