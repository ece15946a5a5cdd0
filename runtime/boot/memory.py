"""Where everything lies in a new guest's memory.

pfn 0 ... kernel | start_info | xenstore ring | console ring | L4, L3s, L2s, L1s | stack ... 4 MiB boundary
    all of this is mapped at VIRT_BASE + pfn * 4096;  beyond it, without such a mapping:
p2m table (seen at INIT_P2M) | its L3s, L2s, L1s | initrd
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.boot.abi.start_info import PAGE_SHIFT, PAGE_SIZE
from runtime.boot.model import KernelInfo, Pfn
from runtime.boot.pagetable import Mapping, table_counts

_SLACK_PAGES = 128  # the 512 KiB a guest finds mapped behind its stack: xen/include/public/xen.h, start of day layout
_BOUNDARY_PAGES = 1024  # and the mapping ends on 4 MiB


@dataclass(frozen=True)
class Fill:
    """Bytes of a memory area: [at, at + size) come from the file's `source_offset`, or are zeros where that is None."""

    at: int
    size: int
    source_offset: int | None


@dataclass(frozen=True)
class Layout:
    """The map of a new guest. `main` maps the low pages; `p2m` maps the p2m table; both share the L4."""

    nr_pages: int
    kernel_pfn: Pfn
    kernel_end_pfn: Pfn
    start_info_pfn: Pfn
    store_pfn: Pfn
    console_pfn: Pfn
    l4_pfn: Pfn
    main: Mapping
    stack_pfn: Pfn
    p2m: Mapping
    initrd_pfn: Pfn
    initrd_bytes: int
    end_pfn: Pfn

    @property
    def main_tables(self) -> range:
        """The frames of the L4 and of the main mapping's tables."""
        return range(self.l4_pfn, self.l4_pfn + 1 + self.main.nr_tables)

    @property
    def nr_p2m_frames(self) -> int:
        """Frames of the p2m table and of its page tables."""
        return self.p2m.nr_pages + self.p2m.nr_tables


def pages(size_bytes: int) -> int:
    """Pages that hold size_bytes."""
    return -(-size_bytes // PAGE_SIZE)


def plan_layout(kernel: KernelInfo, *, nr_pages: int, initrd_bytes: int) -> Layout:
    """Lay out a guest; the result may end beyond nr_pages, which the caller must refuse (`Layout.end_pfn`).

    Units:   nr_pages in 4 KiB pages.
    Source:  xen/include/public/xen.h, "Start-of-day memory layout".
    """
    start = kernel.segments[0].paddr - kernel.paddr_offset
    end = kernel.segments[-1].paddr + kernel.segments[-1].memsz - kernel.paddr_offset
    kernel_end = pages(end)
    l4 = kernel_end + 3
    # The tables lie inside what they map, so their number depends on itself: grow until it fits.
    nr_tables = 4
    while True:
        stack = l4 + nr_tables
        mapped = -(-(stack + 1 + _SLACK_PAGES) // _BOUNDARY_PAGES) * _BOUNDARY_PAGES
        needed = 1 + sum(table_counts(kernel.virt_base, mapped))
        if needed <= nr_tables:
            break
        nr_tables = needed
    p2m_pages = pages(nr_pages * 8)
    p2m = Mapping(kernel.init_p2m_vaddr, Pfn(mapped), p2m_pages, Pfn(mapped + p2m_pages))
    initrd = mapped + p2m_pages + p2m.nr_tables
    return Layout(
        nr_pages=nr_pages,
        kernel_pfn=Pfn(start >> PAGE_SHIFT),
        kernel_end_pfn=Pfn(kernel_end),
        start_info_pfn=Pfn(kernel_end),
        store_pfn=Pfn(kernel_end + 1),
        console_pfn=Pfn(kernel_end + 2),
        l4_pfn=Pfn(l4),
        main=Mapping(kernel.virt_base, Pfn(0), mapped, Pfn(l4 + 1)),
        stack_pfn=Pfn(stack),
        p2m=p2m,
        initrd_pfn=Pfn(initrd),
        initrd_bytes=initrd_bytes,
        end_pfn=Pfn(initrd + pages(initrd_bytes)),
    )


def plan_kernel_area(kernel: KernelInfo, layout: Layout) -> tuple[Fill, ...]:
    """What fills [kernel_pfn, kernel_end_pfn): segments, and zeros for BSS and every gap; nothing is left as found."""
    area_start = layout.kernel_pfn << PAGE_SHIFT
    fills: list[Fill] = []
    position = 0
    for segment in kernel.segments:
        at = segment.paddr - kernel.paddr_offset - area_start
        fills.append(Fill(position, at - position, None))
        fills.append(Fill(at, segment.filesz, segment.offset))
        position = at + segment.filesz
    fills.append(Fill(position, (layout.kernel_end_pfn << PAGE_SHIFT) - area_start - position, None))
    return tuple(fill for fill in fills if fill.size)
