"""The setting that says where results are kept in, an open store for them out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from service.errors import StoreUnavailable
from service.stores.base import RESULT_ID, Store, new_id
from service.stores.folder import FolderStore, open_folder

__all__ = ["RESULT_ID", "FolderStore", "Store", "check_address", "new_id", "open_store"]

OFF = "off"
FOLDER = "dir:"
REDIS = ("redis://", "rediss://", "unix://")


def check_address(where: str) -> str:
    """`where`, if results can be kept there; ValueError, which never holds a password, if not."""
    if where.startswith(REDIS):
        from service.stores.redis import check  # noqa: PLC0415 - its packages take long to import

        check(where)
    elif where != OFF and (where == FOLDER or not where.startswith(FOLDER)):
        shown = f"{where.partition(':')[0]}:..." if "@" in where or "?" in where else where
        raise ValueError(
            f"{shown!r} is no place for results: it must be off, dir:PATH, redis://HOST[:PORT][/DB], rediss://... or"
            " unix://PATH; without the setting they are in a private temporary folder"
        )
    return where


@contextmanager
def open_store(where: str | None, seconds: float, max_bytes: int) -> Iterator[Store | None]:
    """The store at an address, for the time of the context; None where that is `off`.

    Without an address it is a private temporary folder, which is removed at the end.
    """
    if where is None:
        with _private_folder() as folder:
            yield FolderStore(folder, seconds, max_bytes)
    elif check_address(where) == OFF:
        yield None
    elif where.startswith(FOLDER):
        yield open_folder(Path(where.removeprefix(FOLDER)), seconds, max_bytes)
    else:
        from service.stores.redis import RedisStore  # noqa: PLC0415 - its packages take long to import

        with closing(RedisStore(where, seconds)) as store:
            yield store


@contextmanager
def _private_folder() -> Iterator[Path]:
    try:
        folder = TemporaryDirectory(prefix="segserve-results-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StoreUnavailable(
            f"no temporary folder for results: {error.strerror or error}; name a folder as dir:PATH, or off"
        ) from error
    with folder as name:
        yield Path(name)
