"""What goes into a boot and what a boot decides; frozen, printable, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Domid = NewType("Domid", int)
Pfn = NewType("Pfn", int)
Mfn = NewType("Mfn", int)
EvtchnPort = NewType("EvtchnPort", int)
GrantRef = NewType("GrantRef", int)

DEFAULT_CMDLINE = (
    "console=hvc0 quiet panic=-1 mitigations=off cryptomgr.notests rcupdate.rcu_expedited=1 random.trust_cpu=on"
)


@dataclass(frozen=True)
class FileRange:
    """The first `size_bytes` of a file or block device (a hot-plugged disk is longer than what it carries)."""

    path: str
    size_bytes: int


@dataclass(frozen=True)
class Disk:
    """A block device of this host, given to the zone under the name `vdev` ("xvda" to "xvdp")."""

    vdev: str
    device: str
    readonly: bool = True


@dataclass(frozen=True)
class Vif:
    """The zone's network interface; mac as "02:…", mtu in bytes."""

    mac: str
    mtu: int = 1500


@dataclass(frozen=True)
class DomainSpec:
    """A zone as the host asks for it.

    ramdisk:         raw newc segments, loaded one after the other, each padded to 4 bytes.
    launch_segment:  the last segment, made for this one boot (`launch.py`).
    shares:          tags of directories that are served to it, each by its place here (`ninepfs.py`).
    agent_channel:   give it a second console (hvc1), which carries the bytes of its agent.
    backend_domid:   the domain that serves disks and network; 0 until there are driver zones.
    """

    name: str
    uuid: str
    kernel: FileRange
    ramdisk: tuple[FileRange, ...] = ()
    memory_mib: int = 256
    memory_max_mib: int = 0  # 0: memory_mib
    vcpus: int = 1
    vcpus_max: int = 0  # 0: vcpus
    cmdline: str = DEFAULT_CMDLINE
    launch_segment: bytes = b""
    disks: tuple[Disk, ...] = ()
    vif: Vif | None = None
    shares: tuple[str, ...] = ()
    agent_channel: bool = True
    backend_domid: int = 0

    @property
    def most_vcpus(self) -> int:
        """vCPUs Xen makes; those beyond `vcpus` stay offline."""
        return self.vcpus_max or self.vcpus

    @property
    def most_memory_mib(self) -> int:
        """Memory the zone may grow to."""
        return self.memory_max_mib or self.memory_mib


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD: file bytes [offset, offset + filesz) go to guest-physical paddr, then zeros up to memsz."""

    offset: int
    paddr: int
    filesz: int
    memsz: int


@dataclass(frozen=True)
class KernelInfo:
    """What a kernel's ELF header and Xen notes say. Addresses are the guest's virtual ones."""

    entry_vaddr: int
    virt_base: int
    paddr_offset: int
    init_p2m_vaddr: int
    hypercall_page_vaddr: int | None
    segments: tuple[Segment, ...]
    guest_os: str = ""


@dataclass(frozen=True)
class Node:
    """One xenstore write. value None: make the directory; perms (): as the parent's."""

    path: str
    value: str | None = None
    perms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShutdownState:
    """How a domain ended: reason as in Xen's sched.h, "destroyed" where Xen knows it no more."""

    domid: int
    reason: str


@dataclass(frozen=True)
class ZoneState:
    """What the zone's init wrote below D/zone/state. Written by the guest: shown and compared, never trusted."""

    phase: str = ""
    timings: dict[str, float] | None = None
    exit: str = ""
