"""A folder in, what all worker processes of a server agree on out: which models are not to be served.

`desired.json` is what an administrator asked for last; each process that lives holds a lock on a file of its own,
`<process id>.worker`, which says up to which generation of that it has come.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from pydantic import Field, ValidationError

from service.errors import StateUnavailable
from service.manifest import Record, explain

logger = logging.getLogger(__name__)

FILE = "desired.json"
LOCK = "lock"
SUFFIX = ".worker"


class Desired(Record):
    """What an administrator asked for: the models that are unloaded. Each change is a generation of its own."""

    generation: Annotated[int, Field(ge=0)] = 0
    unloaded: frozenset[str] = frozenset()

    def changed(self, name: str, load: bool) -> Desired:
        """The next generation, with that model loaded or unloaded."""
        unloaded = self.unloaded - {name} if load else self.unloaded | {name}
        return Desired(generation=self.generation + 1, unloaded=unloaded)


class State:
    """A process's place in the folder; by a lock, others know that it lives."""

    def __init__(self, folder: Path, own: int) -> None:
        """`own`: the open file that is this process's."""
        self._folder = folder
        self._own = own

    def read(self) -> Desired:
        """What is desired now. Raises StateUnavailable where the file cannot be read."""
        try:
            return Desired.model_validate_json((self._folder / FILE).read_bytes())
        except FileNotFoundError:
            return Desired()
        except (OSError, ValidationError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else error.strerror
            raise StateUnavailable(f"{self._folder / FILE}: {reason}") from error

    def change(self, name: str, load: bool) -> Desired:
        """Ask all processes to load or unload a model; returns what is desired then. Raises StateUnavailable."""
        with _told(self._folder), (self._folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            desired = self.read().changed(name, load)
            part = self._folder / f"{FILE}.part"
            part.write_text(desired.model_dump_json())
            part.replace(self._folder / FILE)
            return desired

    def report(self, generation: int) -> None:
        """Say that this process has done what that generation asks for."""
        with suppress(OSError):  # who waits for it is told that this process does not agree
            os.pwrite(self._own, f"{generation:020}".encode(), 0)

    def behind(self, generation: int) -> list[int]:
        """The ids of living processes that have not come to that generation. Raises StateUnavailable."""
        with _told(self._folder):
            found = sorted(self._folder.glob(f"*{SUFFIX}"))
            return [int(path.stem) for path in found if _generation(path) < generation]


def _generation(path: Path) -> float:
    """How far a process has come; one that is gone is no longer waited for."""
    try:
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0)
            path.unlink()
    except FileNotFoundError:
        pass
    return float("inf")


@contextmanager
def open_state(folder: Path) -> Iterator[State]:
    """A place in the folder for this process, for the time of the context. Raises StateUnavailable."""
    path = folder / f"{os.getpid()}{SUFFIX}"
    part = path.with_suffix(".part")
    with _told(folder):
        folder.mkdir(0o700, parents=True, exist_ok=True)
        own = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with _told(folder):
            fcntl.flock(own, fcntl.LOCK_EX)
            part.replace(path)  # only now do others see it, and that it is locked
        yield State(folder, own)
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(own)


@contextmanager
def open_state_or_none(folder: Path | None) -> Iterator[State | None]:
    """As `open_state`; by default in a temporary folder. None, and why in the log, where there is no place for it: that
    does not keep the service from segmenting."""
    with ExitStack() as stack:
        try:
            if folder is None:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="segserve-state-")))
            state = stack.enter_context(open_state(folder))
        except (OSError, StateUnavailable) as error:
            logger.error("models cannot be loaded or unloaded: %s", error)
            yield None
        else:
            yield state


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateUnavailable(
            f"the folder for the state of the models, {folder}, cannot be used: {error.strerror or error}; name one "
            "that this process may write, with SEGSERVE_STATE"
        ) from error
