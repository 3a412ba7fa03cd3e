"""Keys as the settings have them (`sha256:<hex>` or `@FILE`) in, what a caller may do out; no plain key is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import Forbidden, KeyMissing

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

MOST = 1000
"""Keys of one scope: every request is compared with all of them."""

HOW = "as the header Authorization: Bearer KEY, or X-API-Key: KEY"


def digest(key: bytes) -> str:
    """What the settings hold of a key: `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(key).hexdigest()}"


def read_digests(words: Iterable[str]) -> tuple[str, ...]:
    """The digests that `words` list, each `sha256:<hex>`, or `@FILE` with one a line; after `#` is a comment.

    Raises ValueError, which never holds what may be a plain key, where one is neither, a file cannot be read, or no key
    is listed: a mistake must not open the service.
    """
    digests = tuple(dict.fromkeys(_digests(words)))
    if not digests:
        raise ValueError("no key is listed: leave the setting out where none is wanted, `segserve key` makes one")
    if len(digests) > MOST:
        raise ValueError(f"{len(digests)} keys are listed, at most {MOST} can be")
    return digests


def _digests(words: Iterable[str]) -> Iterator[str]:
    for number, word in enumerate(words, 1):
        if word.startswith("@"):
            yield from _lines(Path(word[1:]))
        else:
            yield _checked(word, f"entry {number}")


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror or 'not a path'}") from None
    except ValueError:  # not UTF-8, or a NUL in the path
        raise ValueError(f"the file {path} is no text file of sha256:<hex> lines") from None
    words = [line.partition("#")[0].strip() for line in text.splitlines()]
    if not any(words):
        raise ValueError(f"the file {path} lists no key: `segserve key` makes one")
    for number, word in enumerate(words, 1):
        if word:
            yield _checked(word, f"{path}, line {number}")


def _checked(word: str, where: str) -> str:
    found = word.lower()
    if not DIGEST.fullmatch(found):
        raise ValueError(
            f"{where} is not sha256: and 64 hexadecimal digits. Keys are not taken as plain text: "
            "`segserve key --stdin` hashes the one it reads, `segserve key` makes a new one"
        )
    return found


@dataclass(frozen=True)
class Keys:
    """The digests of the keys that may segment, and of those that may also load and unload models."""

    segment: tuple[str, ...] = field(default=(), repr=False)
    admin: tuple[str, ...] = field(default=(), repr=False)

    def check_segment(self, key: bytes | None) -> None:
        """Raise KeyMissing or Forbidden where `key` does not let its holder segment; without such keys all may."""
        if not self.segment:
            return
        if not key:
            raise KeyMissing(f"this needs an API key: send it {HOW}")
        if not _is_among(key, self.segment + self.admin):
            raise Forbidden("the API key is none of this server's: ask its operator for one")

    def check_admin(self, key: bytes | None, model: str) -> None:
        """Raise KeyMissing or Forbidden where `key` does not let its holder load and unload the model of that name."""
        if not self.admin:
            raise Forbidden(
                f"{model} cannot be loaded or unloaded over HTTP: no key of an administrator is set up. Put the bundle "
                "into the model folder, or take it out: the server notices"
            )
        if not key:
            raise KeyMissing(f"to load or unload {model} needs the key of an administrator: send it {HOW}")
        if not _is_among(key, self.admin):
            raise Forbidden(f"to load or unload {model} needs the key of an administrator; the one that came is none")


def _is_among(key: bytes, digests: tuple[str, ...]) -> bool:
    """Whether a key has one of the digests; all are compared, so that the time it takes does not tell which."""
    given = digest(key)
    return True in [hmac.compare_digest(given, known) for known in digests]
