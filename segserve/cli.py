"""`segserve`: the command line that users type; each command is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from segserve import __version__
from segserve.interrupt import INTERRUPTED

COMMANDS: Mapping[str, tuple[str, str]] = {
    "completion": ("segserve.completion:completion", "Print the script that makes a shell complete commands."),
    "key": ("segserve.key:key", "Make an API key, or hash one."),
    "models": ("segserve.models:models", "List the models of a folder or of a server."),
    "segment": ("segserve.segment:segment", "Segment pictures and folders of pictures."),
    "serve": ("service.cli:serve", "Serve the models of a folder over HTTP."),
}
"""Each command: where it is, and what it does; said here, so that the list of commands imports none of them."""


class LazyGroup(click.Group):
    """A group that imports only the command that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """The command's result; Ctrl-C ends it as it ends other programs."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, none of which is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and the group's own options, that begin so."""
        commands = [CompletionItem(name, help=COMMANDS[name][1]) for name in sorted(COMMANDS)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [item for item in commands if item.value.startswith(incomplete)] + options


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="segserve")
def main() -> None:
    """Semantic segmentation as a service."""
