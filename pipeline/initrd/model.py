"""What making an initrd takes and gives."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.build.model import InitResult
from pipeline.bundle.model import Module
from pipeline.oci import Descriptor
from pipeline.unpack.model import UnpackResult


@dataclass(frozen=True)
class InitrdParams:
    """kernel: the unpacked kernel image; init: the zone's static program."""

    kernel: UnpackResult
    init: InitResult


@dataclass(frozen=True)
class InitrdResult:
    """kernel_elf: uncompressed; base and modules_segment: whole newc archives, to be appended in this order.

    modules: in load order, with their paths in modules_segment.
    addons:  the kernel's addons squashfs, None where the initrd has all of it.
    vermagic: what modules for this kernel must say; "" where the kernel has no module to tell.
    filesystems: those of kernelconfig.OPTIONS that are built in; () where the kernel's image does not say.
    """

    kernel_elf: Descriptor
    release: str
    base: Descriptor
    modules_segment: Descriptor
    modules: tuple[Module, ...]
    addons: Descriptor | None = None
    vermagic: str = ""
    filesystems: tuple[str, ...] = ()
