"""`python -P child.py`: a process of its own for somebody else's net, in which segserve's own packages are not there.

A repository may have packages called `models`, `utils`, `export`, `service` or `training`: here these names mean that
repository's. What the process needs of segserve it has under a name that no one else uses. It is asked and answers
through the pipes that it is started with as standard input and output; what the net itself prints goes to standard
error.
"""

import importlib
import os
import sys
import threading
import time
import types
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OURS = ("export", "service", "training", "segserve")
ALIAS = "_segserve_export"


class OursHidden:
    """Finds packages that are called like ours anywhere but where ours lie."""

    @staticmethod
    def find_spec(name: str, path: object = None, _target: object = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if path is not None or name not in OURS:
            return None
        spec = PathFinder.find_spec(name, elsewhere(sys.path))
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec


def elsewhere(path: Iterable[str]) -> list[str]:
    """The folders of `path` but the one where ours lie."""
    return [entry for entry in path if Path(entry).resolve() != ROOT]


def end_with(parent: int) -> None:
    """End this process when `parent` has gone: busy over an answer that nobody waits for, it would not notice."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Hide ours, keep the pipes for ourselves, and work."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    if (ROOT / "pyproject.toml").exists():
        # A checkout: its other folders, such as models/, are not to be found either.
        sys.path[:] = elsewhere(sys.path)
    sys.meta_path.insert(0, OursHidden)
    package = types.ModuleType(ALIAS)
    package.__path__ = [str(HERE)]
    sys.modules[ALIAS] = package
    importlib.import_module(f"{ALIAS}.worker").work(requests, answers)


if __name__ == "__main__":
    main()
