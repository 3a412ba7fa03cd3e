"""The model folder and what an administrator asks for in, models that keep up with both out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from service.desired import Desired, State
from service.errors import DeadlineExceeded, NotPossible, StateUnavailable
from service.repository import Repository

logger = logging.getLogger(__name__)

STATE_SECONDS = 0.2
"""How often a process looks for what an administrator asks for."""

AGREE_SECONDS = 30.0
"""How long a load or unload may take until all processes have done it."""


class Keeper:
    """Keeps a repository up with its folder and with what an administrator asks for."""

    def __init__(
        self,
        repository: Repository,
        state: State | None,
        seconds: float,
        changed: Callable[[], None] = lambda: None,
        replicated: bool = False,
    ) -> None:
        """`seconds`: between two looks at the folder, 0 for never. Without a state nobody can ask for anything, nor
        where the server is one of several, which would not hear of it. `changed` is called after each look."""
        self._repository = repository
        self._state = state
        self._seconds = seconds
        self._changed = changed
        self._replicated = replicated
        self._complaint = ""

    async def load(self) -> Desired:
        """Open what is there and wanted; returns what was. Raises what makes the service itself unusable."""
        desired = await self._desired(Desired())
        await asyncio.to_thread(self._repository.load, desired.unloaded)
        self._done(desired)
        return desired

    async def run(self, done: Desired) -> None:
        """For ever, once `done` is."""
        looked = monotonic()
        while True:
            await asyncio.sleep(STATE_SECONDS)
            desired = await self._desired(done)
            asked = desired.generation != done.generation
            if not asked and (not self._seconds or monotonic() < looked + self._seconds):
                continue
            try:
                await asyncio.to_thread(self._repository.refresh, desired.unloaded, at_once=asked)
            except Exception as error:  # whatever it is, what serves goes on serving
                self._complain(f"the model folder cannot be read, everything stays as it is: {error}")
                looked = monotonic()
                continue  # and what was asked for is not done
            self._complaint = ""
            done, looked = desired, monotonic()
            self._done(done)

    async def change(self, name: str, load: bool, seconds: float = AGREE_SECONDS) -> None:
        """Load or unload a model in all processes, and wait until they have, for so many seconds at most.

        Raises NotPossible, StateUnavailable, or DeadlineExceeded with the processes that have not.
        """
        if self._replicated:
            raise NotPossible(
                "this is one of several servers behind one address, and the others would not hear of it: change the "
                "model folder that they share, which all of them watch"
            )
        if self._state is None:
            raise StateUnavailable("this server has no place for which models are loaded; its log says why")
        desired = await asyncio.to_thread(self._state.change, name, load)
        end = monotonic() + seconds
        while behind := await asyncio.to_thread(self._state.behind, desired.generation):
            if monotonic() > end:
                word = "load" if load else "unload"
                raise DeadlineExceeded(
                    f"after {seconds:g} s not all processes did {word} {name}: {', '.join(map(str, behind))} did "
                    "not yet; they go on trying"
                )
            await asyncio.sleep(STATE_SECONDS / 4)

    async def _desired(self, last: Desired) -> Desired:
        """What is desired now; the last that is known, where it cannot be read."""
        if self._state is None:
            return last
        try:
            return await asyncio.to_thread(self._state.read)
        except StateUnavailable as error:
            self._complain(str(error))
            return last

    def _done(self, desired: Desired) -> None:
        self._changed()
        if self._state is not None:
            self._state.report(desired.generation)

    def _complain(self, text: str) -> None:
        """Log it, unless that was the last thing logged: a fault lasts, and looks are many."""
        if text != self._complaint:
            self._complaint = text
            logger.error("%s", text)
