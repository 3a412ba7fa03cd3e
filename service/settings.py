"""Environment variables `SEGSERVE_...` in, one frozen record of settings out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.collector import check_collector
from service.keys import read_digests
from service.store import check_address

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""The picture formats that may be accepted, by Pillow's names."""

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""The execution providers that may be asked for, and onnxruntime's names for them."""

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+")
"""What browsers send as Origin, or all of them."""

Words = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """How the service runs. Every field is the environment variable `SEGSERVE_<NAME>` and an option of
    `segserve serve`."""

    model_config = SettingsConfigDict(env_prefix="SEGSERVE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    models: Path = Field(Path("models"), description="Folder with the bundles, <name>/<version>/.")
    default_model: str | None = Field(None, description="Model for requests that name none.")
    variant: str = Field("auto", description="Id of the variant to open; auto: the fastest one that proves right.")
    providers: Words = Field(("cpu",), description="Execution providers, comma-separated, best first.")
    workers: int = Field(1, ge=1, le=256, description="Server processes.")
    threads: int = Field(
        0, ge=0, le=1024, description="Cores of each process; 0: its share of those that the container or machine has."
    )
    batch: int = Field(
        8, ge=1, le=256, description="Most pictures run at once, where start-up measures that to be faster; 1: never."
    )
    batch_ms: float = Field(2, ge=0, le=1000, description="Milliseconds that the first of them waits for others.")
    max_bytes: ByteSize = Field(ByteSize(32 * 2**20), gt=0, description="Largest picture in bytes (also 8MiB, 20MB).")
    memory_bytes: ByteSize = Field(
        ByteSize(2**29), gt=0, description="Bytes of pictures that may be in memory at once, of each process."
    )
    max_pixels: int = Field(50_000_000, gt=0, description="Largest picture in pixels.")
    formats: Words = Field(FORMATS, description="Accepted picture formats, comma-separated.")
    thumbnails: bool = Field(True, description="Decode a large JPEG only as far as the net needs it.")
    timeout: float = Field(30, gt=0, description="Seconds a request may take, unless it asks for another limit.")
    max_timeout: float = Field(120, gt=0, description="Highest limit in seconds that a request may ask for.")
    upload_timeout: float = Field(60, gt=0, description="Seconds within which a request's body must have arrived.")
    header_timeout: float = Field(
        10, gt=0, description="Seconds within which a request's line and headers must have arrived."
    )
    connections: int = Field(500, ge=1, description="Connections that a process has open at most.")
    streams: int = Field(16, ge=0, description="Streams that a process has open at most; 0: none.")
    stream_idle: float = Field(60, gt=0, description="Seconds after which a stream ends that sends no frame.")
    drain_seconds: float = Field(30, ge=0, description="Seconds that work in hand may still take after SIGTERM.")
    drain_delay: float = Field(
        0, ge=0, description="Seconds after SIGTERM during which work is still taken, while ready says 503."
    )
    watch: float = Field(2, ge=0, description="Seconds between looks at the model folder for changes; 0: never.")
    state: Path | None = Field(
        None,
        description="Folder for which models are loaded; by default a private temporary one, forgotten at the end.",
    )
    replicated: bool = Field(
        False,
        description="One of several servers behind one address: loading and unloading models is refused (409), and "
        "without a place that all share, no results are kept.",
    )
    results: str | None = Field(
        None,
        description="Where results are kept: off, dir:PATH or redis://HOST; by default a private temporary folder.",
        repr=False,
    )
    results_seconds: float = Field(3600, gt=0, le=2_592_000, description="How long a result is kept.")
    results_bytes: ByteSize = Field(
        ByteSize(2**30), gt=0, description="Most that a folder of results may take; the least recently used go first."
    )
    ready: Literal["all", "any"] = Field("all", description="Ready when every model is usable, or when any is.")
    api_keys: Words = Field(
        (), description="Keys that may segment, comma-separated: sha256:<hex>, or @FILE with one a line.", repr=False
    )
    admin_keys: Words = Field(
        (), description="Keys that may also load and unload models, in the same form.", repr=False
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of the log's lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    traces: str | None = Field(
        None, description="Where traces are sent: an OTLP/HTTP endpoint, as in http://collector:4318/v1/traces."
    )
    cors_origins: Words = Field(
        (), description="Origins whose web pages may ask, comma-separated, as in https://app.example; * for all."
    )

    @field_validator("providers", "formats", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _words(value) if isinstance(value, str) else value

    @field_validator("results")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        return value and check_address(value)

    @field_validator("traces")
    @classmethod
    def _known_collector(cls, value: str | None) -> str | None:
        return check_collector(value) if value else None

    @field_validator("api_keys", "admin_keys", mode="before")
    @classmethod
    def _hashed_keys(cls, value: str | tuple[str, ...]) -> tuple[str, ...]:
        # An empty variable is a mistake that must not open the service; no variable is none.
        return () if value == () else read_digests(_words(value) if isinstance(value, str) else value)

    @field_validator("cors_origins")
    @classmethod
    def _real_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if not ORIGIN.fullmatch(word):
                raise ValueError(
                    f"{word!r} is no origin: write it as browsers send it, in small letters and without a path, as in "
                    "https://app.example, or * for all"
                )
        return value

    @field_validator("providers")
    @classmethod
    def _known_providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _among(tuple(word.lower() for word in value), tuple(PROVIDERS))

    @field_validator("formats")
    @classmethod
    def _known_formats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _among(tuple(word.upper().replace("JPG", "JPEG") for word in value), FORMATS)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _among(words: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    strange = [word for word in words if word not in known]
    if strange or not words:
        raise ValueError(f"{', '.join(strange) or 'nothing'} is not among {', '.join(known)}")
    return words
