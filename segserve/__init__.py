"""segserve: semantic segmentation as a service. What users type and import.

from segserve import Client

Client("http://localhost:8000").segment("street.jpg").overlay(alpha=0.6).save("out.jpg")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segserve.answers import File, ModelClass, ModelName, ModelRecord, SegmentedClass
    from segserve.async_client import AsyncClient, AsyncSegmentation
    from segserve.client import Client, Segmentation
    from segserve.errors import Refused, SegserveClientError, Unreachable, Unreadable, UnusablePicture

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncSegmentation",
    "Client",
    "File",
    "ModelClass",
    "ModelName",
    "ModelRecord",
    "Refused",
    "Segmentation",
    "SegmentedClass",
    "SegserveClientError",
    "Unreachable",
    "Unreadable",
    "UnusablePicture",
    "__version__",
]

_MODULES = {
    "answers": ("File", "ModelClass", "ModelName", "ModelRecord", "SegmentedClass"),
    "async_client": ("AsyncClient", "AsyncSegmentation"),
    "client": ("Client", "Segmentation"),
    "errors": ("Refused", "SegserveClientError", "Unreachable", "Unreadable", "UnusablePicture"),
}
"""Where each name is; imported when it is asked for, so that `segserve --version` waits for no HTTP library."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"segserve.{module}"), name)
        raise AttributeError(f"module 'segserve' has no attribute {name!r}")
