"""`segserve key`: nothing, or a key on standard input, in; a fresh key and its hash, or the hash, out."""

from __future__ import annotations

import secrets
import sys

import click

from service.keys import digest

RANDOM_BYTES = 32


@click.command()
@click.option("--stdin", "given", is_flag=True, help="Hash the key that comes on standard input instead.")
def key(given: bool) -> None:
    """Make a fresh API key: print it, and below it its hash for SEGSERVE_API_KEYS or SEGSERVE_ADMIN_KEYS.

    The key goes to who may use it and is written nowhere else; the server is given the hash alone.
    """
    if given:
        click.echo(digest(_read()))
        return
    made = secrets.token_urlsafe(RANDOM_BYTES)
    click.echo(made)
    click.echo(digest(made.encode()))


def _read() -> bytes:
    """The key on standard input, without the end of its line. Raises click.UsageError where it can be none."""
    read = sys.stdin.buffer.read()
    found = read.removesuffix(b"\n").removesuffix(b"\r")
    if not found or any(not 0x21 <= byte <= 0x7E for byte in found):
        raise click.UsageError("what came on standard input is no key: a key is ASCII letters, digits and signs")
    return found
