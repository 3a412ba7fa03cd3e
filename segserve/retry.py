"""A call in, the reply out, asked for again where the service is busy or did not get to answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic

from segserve.errors import Unreachable
from segserve.flow import Call, Flow, Heard, Reply, Silence, Wait

BUSY = frozenset({429, 503})
"""Statuses that say: not now."""

OURS = "application/problem+json"
"""What the service's own refusals are. Another 5xx is from what stands before it: a proxy whose server died."""

FIRST_PAUSE = 0.25
"""Seconds before the first repetition where the service names none; each further pause is twice as long."""


@dataclass(frozen=True)
class Patience:
    """How long and how often a call is tried: at most `retries` repetitions, all within `timeout` seconds.

    Every call of this client may be repeated: segmenting a picture twice does no harm.
    """

    timeout: float = 30.0
    retries: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError for values without meaning."""
        if not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout}: give the seconds that a call may take, more than 0")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}: give how often a call is repeated, 0 for never")

    def ask(self, call: Call) -> Flow[Reply]:
        """The reply to `call`; one that says "not now", or is not the service's own, only where patience is at its end.

        Raises Unreachable without a reply.
        """
        end = monotonic() + self.timeout
        tries = 0
        while True:
            heard = yield replace(call, seconds=max(end - monotonic(), 0.001))
            pause = self._pause(heard, tries)
            tries += 1
            if pause is None or monotonic() + pause >= end:
                break
            yield Wait(pause)
        if isinstance(heard, Reply):
            return heard
        reason = heard.reason if heard else "nothing was heard"
        raise Unreachable(f"{reason} (tried {'once' if tries == 1 else f'{tries} times'})")

    def _pause(self, heard: Heard, tries: int) -> float | None:
        """Seconds to wait before asking again; None where that would not help."""
        if tries >= self.retries:
            return None
        if isinstance(heard, Reply):
            if heard.status not in BUSY and not _is_from_between(heard):
                return None
            named = retry_after(heard)
            return FIRST_PAUSE * 2**tries if named is None else named
        return FIRST_PAUSE * 2**tries if isinstance(heard, Silence) and heard.again else None


def _is_from_between(reply: Reply) -> bool:
    """Whether something between here and the service answered, because the service did not."""
    return reply.status >= 500 and not reply.headers.get("content-type", "").startswith(OURS)


def retry_after(reply: Reply) -> float | None:
    """The seconds of a reply's Retry-After; None where it has none, or a date."""
    value = reply.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() else None
