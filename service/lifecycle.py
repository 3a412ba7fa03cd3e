"""Signals in, what a server process does with work out: take it, or refuse it while what is inside comes to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from service.errors import Draining

QUIET_SECONDS = 1.0
"""How long nothing may have come over open connections before they are closed: a request that crosses a closing
connection is lost."""


class Lifecycle:
    """The stages of one server process: it takes work, it drains, it is over. Lives in one event loop.

    While draining it is not ready; for the first `delay` seconds of it work is still taken, so that load balancers can
    notice, and `bound` seconds after that it is over, whatever is still inside.
    """

    def __init__(
        self, delay: float = 0.0, bound: float = 30.0, at_once: bool = True, once_loaded: bool = False
    ) -> None:
        """`at_once` false: connections are taken only after `admit`, or with `once_loaded` when that is."""
        self._delay = delay
        self._once_loaded = once_loaded
        self._bound = bound
        self._since: float | None = None
        self._moved = monotonic()
        self._inside: set[asyncio.Timeout] = set()
        self._then: list[Callable[[], None]] = []
        self._admitted = asyncio.Event()
        self._draining = asyncio.Event()
        self.loaded = asyncio.Event()
        """Set once the models are loaded, as far as they can be."""
        if at_once:
            self.admit()

    def admit(self) -> None:
        """The process may take connections."""
        self._admitted.set()

    async def admission(self, loading: asyncio.Task[Any]) -> None:
        """Until the process may take connections. Raises what `loading` raises, where it may not by then."""
        loading.add_done_callback(self._told)
        waiting = asyncio.create_task(self._admitted.wait())
        await asyncio.wait({waiting, loading}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await loading
        await waiting

    def _told(self, loading: asyncio.Task[Any]) -> None:
        if loading.cancelled() or loading.exception():
            return
        self.loaded.set()
        if self._once_loaded:
            self.admit()

    def when_draining(self, call: Callable[[], None]) -> None:
        """Call this once the process begins to drain."""
        self._then.append(call)

    def drain(self) -> None:
        """Begin to drain; to say it again changes nothing."""
        if self._since is None:
            self._since = monotonic()
            self._draining.set()
            for call in self._then:
                call()
        self.admit()

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to end."""
        return self._since is not None

    async def last_call(self) -> None:
        """Until no more work is taken."""
        await self._draining.wait()
        await asyncio.sleep(max(self._delay - self._elapsed, 0.0))

    def problems(self) -> list[str]:
        """Why the process is not ready, as far as that is not its models' fault."""
        return ["the server is about to end and takes no more work"] if self.is_draining else []

    def is_over(self, connections: int) -> bool:
        """Whether the process, to which so many connections are open, may end: nothing is inside any more and nothing
        on its way, or the time for it has passed."""
        late = self._elapsed - self._delay
        if not self.is_draining or late < 0:
            return False
        quiet = min(late, monotonic() - self._moved)
        return late >= self._bound or (not self._inside and (not connections or quiet >= QUIET_SECONDS))

    @property
    def seconds_left(self) -> float:
        """Until it is over, whatever is inside."""
        return max(self._delay + self._bound - self._elapsed, 0.0)

    def cut_off(self) -> None:
        """End what is inside."""
        for limit in self._inside:
            limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[None]:
        """A request, from its head to the end of its answer. Raises Draining where it comes too late or is cut off."""
        self._moved = monotonic()
        if self.is_draining and self._elapsed >= self._delay:
            raise Draining("this server is about to end and takes no more work: send the request again, elsewhere")
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._inside.add(limit)
                try:
                    yield
                finally:
                    self._inside.remove(limit)
                    self._moved = monotonic()
        except TimeoutError:
            if not limit.expired():
                raise
            raise Draining("this server ended before the answer was there: send the request again, elsewhere") from None

    @property
    def _elapsed(self) -> float:
        """Seconds of draining."""
        return 0.0 if self._since is None else monotonic() - self._since
