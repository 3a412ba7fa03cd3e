"""The URL of a collector of traces in, the same out, if it is one and the exporter that sends there is installed."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

EXAMPLE = "http://collector:4318/v1/traces"

NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
"""What the extra `otel` installs."""


def check_collector(url: str) -> str:
    """`url`, or ValueError, which never holds a password."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("the URL must not hold a password: OTEL_EXPORTER_OTLP_HEADERS has room for one")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path in ("", "/"):
        raise ValueError(f"{url!r} is no address for traces: it must be an OTLP/HTTP endpoint, as in {EXAMPLE}")
    missing = [name for name in NEEDED if not _is_there(name)]
    if missing:
        raise ValueError(f"traces need {', '.join(missing)}: pip install 'segserve[otel]'")
    return url


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # not even the package that it would be in
        return False
