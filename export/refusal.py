"""Why a net or its weights cannot be used, said in one line; known on both sides of the pipe to a child process."""

from __future__ import annotations


class Refusal(ValueError):
    """What was given cannot be exported; the message names the reason and the way out."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line that fits a terminal."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
