"""What squashing takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.oci import Descriptor
from pipeline.squashfs import DEFAULT_COMPRESSION
from pipeline.unpack.model import UnpackResult


@dataclass(frozen=True)
class SquashParams:
    """compression: "zstd-1" to "zstd-22", "small", "gzip" or "lz4"; format: "squashfs"."""

    tree: UnpackResult
    compression: str = DEFAULT_COMPRESSION
    format: str = "squashfs"


@dataclass(frozen=True)
class SquashResult:
    """image: the file system; entries and size_bytes: of the tree it was made from."""

    image: Descriptor
    entries: int
    size_bytes: int
