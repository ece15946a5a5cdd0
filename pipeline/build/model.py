"""What the build stage takes and gives. Every result is also an OCI manifest with a name in the store's index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.oci import Descriptor, Digest


@dataclass(frozen=True)
class ImageParams:
    """An image recipe by name, its checked document, and where its package lock is kept."""

    name: str
    recipe: dict[str, Any]
    lock_path: str


@dataclass(frozen=True)
class ImageResult:
    """An OCI image in the store, tagged `tag`."""

    tag: str
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[Digest, ...]


@dataclass(frozen=True)
class KernelParams:
    """A kernel recipe by name, its checked document, and where its package lock is kept."""

    name: str
    recipe: dict[str, Any]
    lock_path: str


@dataclass(frozen=True)
class KernelResult:
    """A kernel image in the store, tagged `kernel/<name>`: an ordinary OCI image of four files."""

    image: ImageResult
    package: str
    version: str
    release: str
    flavor: str
    boot_modules: tuple[str, ...]
