"""A call in, an httpx request out; an httpx response or error in, what was heard out."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from segserve import __version__
from segserve.flow import Call, Reply, Silence

GRACE = 2.0
"""Seconds beyond a call's own within which the service may still say that its time is up."""

HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.ProxyError)
"""Failures that asking again does not mend."""


@dataclass(frozen=True)
class Address:
    """Where the service is (`url`, without a slash at the end), and the key that it wants, if it wants one."""

    url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, key: str | None) -> Address:
        """Raises ValueError where the URL or the key cannot be one."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not _is_url(url):
            raise ValueError(f"url {url!r}: write http://HOST:PORT or https://HOST, as in http://localhost:8000")
        if parts.query or parts.fragment:
            raise ValueError(f"url {url!r}: write it without ? and #; parameters are arguments of the calls")
        if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key and key):
            raise ValueError("the key has characters that no key has: pass it as it was given, without line breaks")
        return cls(url.rstrip("/"), key)

    def request(self, call: Call) -> httpx.Request:
        """The call as a request to this address."""
        headers = {"User-Agent": f"segserve/{__version__}", "Accept": "*/*"}
        if call.content is not None:
            headers["Content-Type"] = "application/octet-stream"
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        return httpx.Request(
            call.method,
            self.url + call.path,
            params=dict(call.parameters),
            headers=headers,
            content=call.content,
            extensions={"timeout": httpx.Timeout(call.seconds + GRACE).as_dict()},
        )

    def silence(self, error: httpx.HTTPError) -> Silence:
        """What an error of httpx means."""
        hint = (
            ": is a server running there? `segserve serve` starts one" if isinstance(error, httpx.ConnectError) else ""
        )
        reason = f"{self.url} gave no answer ({str(error) or type(error).__name__}){hint}"
        return Silence(reason, isinstance(error, httpx.TransportError) and not isinstance(error, HOPELESS))


def _is_url(text: str) -> bool:
    """Whether it names a host, and a port, if any, that there can be."""
    try:
        return bool(urlsplit(text).hostname and httpx.URL(text).host) and urlsplit(text).port != 0
    except (ValueError, httpx.InvalidURL):
        return False


def reply(response: httpx.Response) -> Reply:
    """The response, read to its end."""
    return Reply(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )
