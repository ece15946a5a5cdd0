"""What squashing takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.oci import Descriptor
from pipeline.unpack.model import UnpackResult


@dataclass(frozen=True)
class SquashParams:
    """format: "squashfs", "erofs" or "tar"; compression: one of the format's, "" for its default: see formats.py."""

    tree: UnpackResult
    compression: str = ""
    format: str = "squashfs"


@dataclass(frozen=True)
class SquashResult:
    """image: the file system; entries and size_bytes: of the tree it was made from."""

    image: Descriptor
    entries: int
    size_bytes: int
