"""Tars and Parquet tables of pictures, as tests need them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_table(path: Path, pictures: list[Any], rows: int = 2) -> Path:
    pq.write_table(pa.table({"image": pictures, "label": list(range(len(pictures)))}), path, row_group_size=rows)
    return path
