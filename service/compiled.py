"""A Python function over arrays in, the same as machine code out: numba, without the interpreter lock.

Compiling takes seconds, so the machine code is kept on disk where there is a place to keep it; else it is compiled anew
in every process. It is made when a function is first called, which opening a bundle does: ready waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from numba import njit
from numba.core.caching import InTreeCacheLocator

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` as machine code. Float operations keep their order: what is computed is what is written."""
    kernel: Any = njit(nogil=True, error_model="numpy")(function)
    with suppress(RuntimeError):  # numba's word for: nowhere to keep it
        kernel.enable_caching()
    return cast("Callable[P, R]", kernel)


class BuiltIn(InTreeCacheLocator):
    """Finds machine code beside the source, also where nothing can be written: in an image, whose build puts it there.

    `NUMBA_CACHE_LOCATOR_CLASSES=service.compiled.BuiltIn` chooses it.
    """

    def ensure_cache_path(self) -> None:
        """Raises OSError where there is neither machine code nor a place for it."""
        if not any(Path(self._cache_path).glob("*.nbi")):
            super().ensure_cache_path()  # type: ignore[no-untyped-call]
