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


@dataclass(frozen=True)
class InitParams:
    """The recipe of the zone's init by name, its checked document, and where its package lock is kept."""

    name: str
    recipe: dict[str, Any]
    lock_path: str


@dataclass(frozen=True)
class InitResult:
    """The static program of the zone, and the artifact that names it in the store as `os/<name>`."""

    elf: Descriptor
    manifest: Descriptor


@dataclass(frozen=True)
class Dom0Params:
    """A dom0 recipe by name, its checked document, and the directory its package locks are kept in."""

    name: str
    recipe: dict[str, Any]
    lock_directory: str


@dataclass(frozen=True)
class Dom0Result:
    """What QEMU boots as the lab: an OCI artifact tagged `os/<flavour>` whose layers are these four.

    xen: the hypervisor, a 32-bit multiboot ELF. kernel: a bzImage. initrd: raw newc. root: squashfs.
    """

    flavour: str
    manifest: Descriptor
    xen: Descriptor
    kernel: Descriptor
    initrd: Descriptor
    root: Descriptor
    xen_version: str
    kernel_release: str
    python_version: str
