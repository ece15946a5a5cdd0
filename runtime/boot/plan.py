"""Decides everything about a domain that can be decided before Xen is asked: a pure function of spec and kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.boot import memory, p2m, vbd
from runtime.boot.abi.start_info import L4_SHIFT, LEGACY_MAX_VCPUS, MAX_GUEST_CMDLINE, PAGE_SIZE
from runtime.boot.errors import BadKernel, BadSpec, OutOfMemory
from runtime.boot.memory import Layout
from runtime.boot.model import DomainSpec, FileRange, KernelInfo

PAGES_PER_MIB = (1 << 20) // PAGE_SIZE
# Beside what the layout takes, Linux needs room for its own tables, and for the initrd a second time while it unpacks.
WORKING_MIB = 16
# Linux describes each page it may ever have in 64 bytes (struct page), out of what it starts with.
_MAP_MIB_PER_MIB = 64
# arch/x86/xen/setup.c, EXTRA_MEM_RATIO: memory beyond the first is counted only up to ten times as much again.
_MOST_GROWTH = 11
SLACK_KIB = 2048  # what libxl, too, lets a domain have beyond its memory: shared_info, grant frames
_MAX_MEMORY_MIB = 256 << 10
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9_@/-]+")  # what a xenstore client may ask for, and more than a zone's name may hold


@dataclass(frozen=True)
class RamdiskPart:
    """A piece of the initrd at byte `at` of it: a file, or (source None) the launch segment."""

    at: int
    size_bytes: int
    source: FileRange | None


@dataclass(frozen=True)
class DomainPlan:
    """A domain, decided. Compares by value; str() is the text kept with a failed boot."""

    spec: DomainSpec
    kernel: KernelInfo
    layout: Layout
    extents: tuple[p2m.Extent, ...]
    kernel_area: tuple[memory.Fill, ...]
    ramdisk: tuple[RamdiskPart, ...]

    @property
    def max_memory_kib(self) -> int:
        """What Xen is told to allow at first; `resize.set_memory` moves it with the target."""
        return self.spec.memory_mib * 1024 + SLACK_KIB

    def __str__(self) -> str:
        spec, layout = self.spec, self.layout
        rows = [
            ("kernel", layout.kernel_pfn, layout.kernel_end_pfn, f"entry {self.kernel.entry_vaddr:#x}"),
            ("start_info", layout.start_info_pfn, layout.start_info_pfn + 1, ""),
            ("xenstore", layout.store_pfn, layout.store_pfn + 1, ""),
            ("console", layout.console_pfn, layout.console_pfn + 1, ""),
            ("page tables", layout.l4_pfn, layout.stack_pfn, f"map pfn 0 to {layout.main.nr_pages:#x}"),
            ("stack", layout.stack_pfn, layout.stack_pfn + 1, ""),
            ("p2m", layout.p2m.first_pfn, layout.p2m.tables_pfn, f"at {layout.p2m.vaddr:#x}"),
            ("p2m tables", layout.p2m.tables_pfn, layout.initrd_pfn, ""),
            ("initrd", layout.initrd_pfn, layout.end_pfn, f"{layout.initrd_bytes} bytes"),
            ("free", layout.end_pfn, layout.nr_pages, ""),
        ]
        lines = [
            f"domain {spec.name} {spec.uuid}",
            f"memory {spec.memory_mib} MiB (at most {spec.most_memory_mib}), vcpus {spec.vcpus} of {spec.most_vcpus}",
            f"kernel {spec.kernel.path} ({self.kernel.guest_os})",
            f"cmdline {spec.cmdline}",
            *(f"ramdisk {p.source.path if p.source else 'launch segment'} {p.size_bytes}" for p in self.ramdisk),
            *(f"disk {d.vdev} {d.device} {'ro' if d.readonly else 'rw'}" for d in spec.disks),
            *([f"vif {spec.vif.mac} mtu {spec.vif.mtu}"] if spec.vif else []),
            *(f"extent pfn {e.pfn:#x} order {e.order} blocks {e.nr_blocks}" for e in self.extents),
            *(f"pfn {start:#8x} {end:#8x}  {name:<11} {note}".rstrip() for name, start, end, note in rows),
        ]
        return "\n".join(lines) + "\n"


def plan_domain(spec: DomainSpec, kernel: KernelInfo) -> DomainPlan:
    """Decide a domain.

    Raises:  BadSpec naming the field; OutOfMemory with the memory the zone would need; BadKernel where what it wants
             mapped where leaves no room for it.
    Effects: none.
    """
    _check_spec(spec)
    parts: list[RamdiskPart] = []
    position = 0
    for source in spec.ramdisk:
        parts.append(RamdiskPart(position, source.size_bytes, source))
        position += source.size_bytes + 3 & ~3  # init/initramfs.c looks for the next archive at multiples of 4
    if spec.launch_segment:
        parts.append(RamdiskPart(position, len(spec.launch_segment), None))
        position += len(spec.launch_segment)
    nr_pages = spec.memory_mib * PAGES_PER_MIB
    layout = memory.plan_layout(kernel, nr_pages=nr_pages, initrd_bytes=position)
    _check_mappings(spec, layout)
    needed_mib = -(-(layout.end_pfn + memory.pages(position)) // PAGES_PER_MIB) + WORKING_MIB
    needed_mib += (spec.most_memory_mib - spec.memory_mib) // _MAP_MIB_PER_MIB
    if spec.memory_mib < needed_mib:
        expected = f"at least {needed_mib} MiB of memory for this kernel and initrd"
        raise OutOfMemory(f"zone {spec.name}", expected=expected, got=f"{spec.memory_mib} MiB")
    return DomainPlan(
        spec=spec,
        kernel=kernel,
        layout=layout,
        extents=p2m.plan_extents(nr_pages),
        kernel_area=memory.plan_kernel_area(kernel, layout),
        ramdisk=tuple(parts),
    )


def _check_mappings(spec: DomainSpec, layout: Layout) -> None:
    """Each within the one entry of the L4 that `elf` has looked at: the next may be Xen's, or none."""
    for name, mapping in (("VIRT_BASE", layout.main), ("INIT_P2M", layout.p2m)):
        last = mapping.vaddr + mapping.nr_pages * PAGE_SIZE - 1
        if last >> L4_SHIFT != mapping.vaddr >> L4_SHIFT:
            expected = f"room for {-(-mapping.nr_pages // PAGES_PER_MIB)} MiB behind {name} in its 512 GiB"
            raise BadKernel(spec.kernel.path, expected=expected, got=f"{mapping.vaddr:#x}")


def _check_spec(spec: DomainSpec) -> None:
    subject = f"zone {spec.name}"
    vdevs = [disk.vdev for disk in spec.disks]
    for fits, field, expected, got in (
        (_NAME.fullmatch(spec.name), "name", "letters, digits, - and _", repr(spec.name)),
        (_UUID.fullmatch(spec.uuid), "uuid", "a lower-case uuid", repr(spec.uuid)),
        (0 < spec.memory_mib <= _MAX_MEMORY_MIB, "memory", f"1 to {_MAX_MEMORY_MIB} MiB", f"{spec.memory_mib}"),
        (spec.memory_mib <= spec.most_memory_mib <= _MAX_MEMORY_MIB, "memory_max", "memory or more",
         f"{spec.most_memory_mib} MiB"),
        (spec.most_memory_mib <= _MOST_GROWTH * spec.memory_mib, "memory_max",
         f"at most {_MOST_GROWTH} times memory, which is as far as Linux grows", f"{spec.most_memory_mib} MiB"),
        (1 <= spec.vcpus <= spec.most_vcpus, "vcpus", f"1 to {spec.most_vcpus}", f"{spec.vcpus}"),
        (spec.most_vcpus <= LEGACY_MAX_VCPUS, "vcpus_max", f"at most {LEGACY_MAX_VCPUS}", f"{spec.most_vcpus}"),
        (spec.cmdline.isascii() and spec.cmdline.isprintable(), "cmdline", "printable ASCII", repr(spec.cmdline)[:80]),
        (len(spec.cmdline) < MAX_GUEST_CMDLINE, "cmdline", f"under {MAX_GUEST_CMDLINE} bytes", f"{len(spec.cmdline)}"),
        (len(set(vdevs)) == len(vdevs), "disks", "each vdev once", ", ".join(vdevs)),
        (spec.vif is None or _MAC.fullmatch(spec.vif.mac), "vif", "a mac such as 02:00:00:00:00:01", f"{spec.vif}"),
        (spec.vif is None or 68 <= spec.vif.mtu <= 65535, "vif", "an mtu of 68 to 65535", f"{spec.vif}"),
    ):  # fmt: skip
        if not fits:
            raise BadSpec(f"{subject}, {field}", expected=expected, got=got)
    for vdev in vdevs:
        vbd.virtual_device(vdev)
