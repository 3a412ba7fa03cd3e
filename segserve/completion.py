"""`segserve completion`: a shell's name in, the script that makes it complete segserve's commands out."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options, models and views.

    Bash: `eval "$(segserve completion bash)"` in ~/.bashrc; zsh the same in ~/.zshrc; fish:
    `segserve completion fish > ~/.config/fish/completions/segserve.fish`.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "segserve", "_SEGSERVE_COMPLETE").source())
