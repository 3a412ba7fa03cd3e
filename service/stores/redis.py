"""Results in, keys of a Redis server out, which expire there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as NoAnswer
from redis.retry import Retry

from service.errors import StoreFull, StoreUnavailable
from service.stores.base import Gone, Store, unknown

RESULT = "segserve:result:"
FORGOTTEN = "segserve:forgotten:"

TIMEOUT = 1
"""Seconds to wait for a connection, and for each answer."""

REST = 5
"""Seconds without an attempt after one that failed."""

OPTIONS = {
    "db", "username", "password", "client_name",
    "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile",
}  # fmt: skip
"""What may follow the question mark of an address."""


class RedisStore(Store):
    """Results as values with an expiry. The server's own limit of memory and its policy decide what is evicted.

    Opening does not connect. While the server does not answer, only one request in `rest` seconds waits for it.
    """

    def __init__(self, url: str, seconds: float, rest: float = REST) -> None:
        self.seconds = seconds
        self._place = place(url)
        self._client = _client(url)
        self._rest = _Rest(rest)

    def put(self, id: str, data: bytes) -> None:
        """Keep a new result."""
        left = self._milliseconds_left(id)
        with self._asking():
            self._client.set(RESULT + id, data, px=left)

    def get(self, id: str) -> bytes:
        """A result that is kept."""
        self.check(id)
        with self._asking():
            data = self._client.get(RESULT + id)
            forgotten = data is None and self._client.exists(FORGOTTEN + id)
        if data is None:
            raise unknown(id, Gone.FORGOTTEN if forgotten else Gone.UNTRACED, self.seconds)
        assert isinstance(data, bytes)
        return data

    def forget(self, id: str) -> None:
        """Drop a result now."""
        self.check(id)
        with self._asking():
            dropped = self._client.delete(RESULT + id)
            forgotten = not dropped and self._client.exists(FORGOTTEN + id)
            if dropped:
                self._leave_trace(id)
        if not dropped:
            raise unknown(id, Gone.FORGOTTEN if forgotten else Gone.UNTRACED, self.seconds)

    def sweep(self) -> None:
        """Nothing: the server drops what has expired."""

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _leave_trace(self, id: str) -> None:
        with suppress(OutOfMemoryError):  # a courtesy: the result is dropped all the same
            self._client.set(FORGOTTEN + id, b"", px=self._milliseconds_left(id))

    def _milliseconds_left(self, id: str) -> int:
        return max(1, int(self.seconds_left(id) * 1000))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What the server or the way to it refuses, as an error of ours, which never holds the password."""
        if self._rest.resting():
            raise StoreUnavailable(f"the Redis server at {self._place} did not answer just now; try again in a moment")
        try:
            yield
        except OutOfMemoryError:
            self._rest.end()
            raise StoreFull(
                f"no room for a result in the Redis server at {self._place}: raise its maxmemory, or let it evict keys"
            ) from None
        except (NoConnection, NoAnswer, OSError) as error:
            self._rest.begin()
            raise self._unavailable(error) from None
        except RedisError as error:
            self._rest.end()
            raise self._unavailable(error) from None
        self._rest.end()

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        password = self._client.get_connection_kwargs().get("password")
        reason = str(error).replace(password, "***") if password else str(error)
        return StoreUnavailable(f"the Redis server at {self._place} cannot be used: {reason}")


class _Rest:
    """After a failure, some seconds without an attempt; then one request tries for all of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._lock = Lock()

    def resting(self) -> bool:
        """Whether a request must not try now."""
        with self._lock:
            if self._until is None:
                return False
            if time.monotonic() < self._until:
                return True
            self._until = time.monotonic() + self._seconds
            return False

    def begin(self) -> None:
        """An attempt failed."""
        with self._lock:
            self._until = time.monotonic() + self._seconds

    def end(self) -> None:
        """An attempt succeeded."""
        with self._lock:
            self._until = None


def place(url: str) -> str:
    """Host and port of an address, or its socket's path; ValueError, which never holds the password, if it is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme == "unix":
        good = bool(parts.path) and not parts.hostname
    else:  # a password with special characters leaves a part of itself behind the host
        number = parts.path.removeprefix("/") or "0"
        good = bool(parts.hostname) and number.isdecimal() and "@" not in parts.query
    if not good or parts.fragment:
        raise ValueError(
            f"the address {url.partition(':')[0]}:... is not understood: it must be redis://[USER:PASSWORD@]HOST[:PORT][/DB],"
            " rediss://... likewise, or unix:///PATH; write special characters of the password as %40 for @ and so on"
        )
    return unquote(parts.path) if parts.scheme == "unix" else f"{parts.hostname}:{port}"


def check(url: str) -> None:
    """Raise ValueError, which never holds the password, where an address is no Redis server's."""
    where = place(url)
    options = {word.partition("=")[0] for word in urlsplit(url).query.split("&") if word}
    if not options <= OPTIONS:
        raise ValueError(
            f"the address of {where} has an unknown option after ?: known are {', '.join(sorted(OPTIONS))}"
        )
    try:
        client = _client(url)
        client.connection_pool.make_connection()
    except (ValueError, TypeError, RedisError):
        raise ValueError(
            f"the address of {where} has an option with a value that is not possible, or one starting with ssl_ without"
            " rediss://"
        ) from None
    client.close()


def _client(url: str) -> Redis:
    return Redis.from_url(
        url,
        protocol=2,
        socket_connect_timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
