"""`segserve`: the command line that users type; each command is imported when it is called."""

from __future__ import annotations

from importlib import import_module

import click

from segserve import __version__

COMMANDS = {"serve": "service.cli:serve"}
"""Each command, and where it is."""


class LazyGroup(click.Group):
    """A group that imports only the command that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="segserve")
def main() -> None:
    """Semantic segmentation as a service."""
