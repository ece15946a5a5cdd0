"""Layouts, tables, start_info: pure plans."""

from __future__ import annotations

import dataclasses
import struct
from array import array

import pytest
from support.kernels import NOTES, VIRT_BASE, kernel_elf

from runtime.boot import p2m, pagetable, startinfo, vcpu
from runtime.boot.elf import parse_kernel
from runtime.boot.errors import BadKernel, BadSpec, HypervisorFault, OutOfMemory
from runtime.boot.model import Disk, DomainSpec, FileRange, KernelInfo, Segment, Vif
from runtime.boot.p2m import Extent, Run
from runtime.boot.plan import plan_domain

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"

# Debian's 6.1 cloud kernel, as its program headers and notes have it.
DEBIAN = KernelInfo(
    entry_vaddr=0xFFFFFFFF8304E1C0,
    virt_base=0xFFFFFFFF80000000,
    paddr_offset=0,
    init_p2m_vaddr=0x8000000000,
    hypercall_page_vaddr=None,
    segments=(
        Segment(0x200000, 0x1000000, 0x1826634, 0x1826634),
        Segment(0x1C00000, 0x2A00000, 0x61A000, 0x61A000),
        Segment(0x2400000, 0x301A000, 0x34000, 0x34000),
        Segment(0x244E000, 0x304E000, 0xDB2000, 0xDB2000),
    ),
)


def small_kernel() -> KernelInfo:
    data = kernel_elf()
    return parse_kernel(lambda offset, size: data[offset : offset + size], len(data))


def spec(**changes: object) -> DomainSpec:
    base = DomainSpec(
        name="web", uuid=UUID, kernel=FileRange("kernel", 1), ramdisk=(FileRange("initrd", 2_700_000),), memory_mib=128
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_layout_of_a_128_mib_zone_is_the_one_that_was_proven() -> None:
    layout = plan_domain(spec(), DEBIAN).layout
    assert (layout.kernel_pfn, layout.kernel_end_pfn) == (0x1000, 0x3E00)
    assert (layout.start_info_pfn, layout.store_pfn, layout.console_pfn, layout.l4_pfn) == (
        0x3E00,
        0x3E01,
        0x3E02,
        0x3E03,
    )
    assert (len(layout.main_tables), layout.stack_pfn, layout.main.nr_pages) == (35, 0x3E26, 0x4000)
    assert (layout.p2m.first_pfn, layout.nr_p2m_frames, layout.initrd_pfn) == (0x4000, 67, 0x4043)


@pytest.mark.parametrize(
    ("note", "value"),
    [
        ("VIRT_BASE", (1 << 64) - 0x1200000),
        ("INIT_P2M", (1 << 64) - 0x1000),
        ("INIT_P2M", (1 << 47) - 0x1000),  # behind which Xen's own begins
        ("INIT_P2M", 0xFFFFFF8000000000 - 0x1000),  # and here the kernel's
    ],
)
def test_kernel_whose_mappings_leave_no_room_in_their_512_gib_is_refused(note: str, value: int) -> None:
    """Their entries would be beyond the L4's end, Xen's, or each other's."""
    entry = value + 0x1000040 if note == "VIRT_BASE" else VIRT_BASE + 0x1000040
    notes = NOTES | {1: struct.pack("<Q", entry), {"VIRT_BASE": 3, "INIT_P2M": 15}[note]: struct.pack("<Q", value)}
    if note == "INIT_P2M" and value >> 39 == VIRT_BASE >> 39:
        notes |= {3: struct.pack("<Q", 1 << 39), 1: struct.pack("<Q", (1 << 39) + 0x1000040)}
    data = kernel_elf(notes=notes)
    kernel = parse_kernel(lambda offset, size: data[offset : offset + size], len(data))
    with pytest.raises(BadKernel, match=f"expected room for .* MiB behind {note} "):
        plan_domain(spec(), kernel)


@pytest.mark.parametrize("memory_mib", [128, 129, 255, 256, 512, 1000, 1024, 2048, 4096, 8192])
def test_parts_of_a_layout_never_overlap_and_fit(memory_mib: int) -> None:
    layout = plan_domain(spec(memory_mib=memory_mib), DEBIAN).layout
    starts = [
        layout.kernel_pfn,
        layout.kernel_end_pfn,
        layout.store_pfn,
        layout.console_pfn,
        layout.l4_pfn,
        layout.l4_pfn + len(layout.main_tables),
        layout.stack_pfn + 1,
        layout.p2m.first_pfn,
        layout.p2m.tables_pfn,
        layout.initrd_pfn,
        layout.end_pfn,
        layout.nr_pages,
    ]
    assert starts == sorted(starts)
    assert layout.stack_pfn >= layout.main_tables.stop
    assert layout.main.nr_pages >= layout.stack_pfn + 1 + 128
    assert layout.p2m.nr_pages * 4096 >= layout.nr_pages * 8
    assert layout.main.nr_pages % 1024 == 0


@pytest.mark.parametrize("memory_mib", [128, 257, 4096])
def test_extents_cover_the_memory_once(memory_mib: int) -> None:
    plan = plan_domain(spec(memory_mib=memory_mib), DEBIAN)
    covered = 0
    for extent in plan.extents:
        assert extent.pfn == covered
        covered += extent.nr_blocks << extent.order
    assert covered == memory_mib * 256


def test_too_little_memory_is_refused_with_the_number_needed() -> None:
    with pytest.raises(OutOfMemory, match=r"at least \d+ MiB .* got 64 MiB") as caught:
        plan_domain(spec(memory_mib=64), DEBIAN)
    needed = int(str(caught.value).split("at least ")[1].split()[0])
    assert plan_domain(spec(memory_mib=needed), DEBIAN).layout.end_pfn <= needed * 256
    with pytest.raises(OutOfMemory):
        plan_domain(spec(memory_mib=needed - 1), DEBIAN)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"cmdline": "x" * 1024}, "cmdline"),
        ({"cmdline": "a\nb"}, "cmdline"),
        ({"cmdline": "ä"}, "cmdline"),
        ({"vcpus": 0}, "vcpus"),
        ({"vcpus": 33}, "vcpus_max"),
        ({"vcpus": 3, "vcpus_max": 2}, "vcpus"),
        ({"memory_max_mib": 100}, "memory_max"),
        ({"memory_mib": 0}, "memory"),
        ({"uuid": "x"}, "uuid"),
        ({"name": "a b"}, "name"),
        ({"disks": (Disk("sda", "/dev/vdb"),)}, "sda"),
        ({"disks": (Disk("xvda", "/dev/vdb"), Disk("xvda", "/dev/vdc"))}, "disks"),
        ({"vif": Vif("02:00", 1500)}, "vif"),
        ({"vif": Vif("02:00:00:00:00:01", 20)}, "vif"),
    ],
)
def test_bad_specs_are_refused_by_field(changes: dict[str, object], word: str) -> None:
    with pytest.raises(BadSpec, match=word):
        plan_domain(spec(**changes), DEBIAN)


def test_segments_of_the_initrd_start_at_multiples_of_four() -> None:
    plan = plan_domain(spec(ramdisk=(FileRange("a", 101), FileRange("b", 8)), launch_segment=b"launch"), small_kernel())
    assert [(part.at, part.size_bytes) for part in plan.ramdisk] == [(0, 101), (104, 8), (112, 6)]
    assert plan.layout.initrd_bytes == 118


def test_plans_are_comparable_and_printable() -> None:
    one, other = plan_domain(spec(), DEBIAN), plan_domain(spec(), DEBIAN)
    assert one == other
    assert str(one) == str(other)
    assert one != plan_domain(spec(memory_mib=129), DEBIAN)
    text = str(one)
    assert "kernel" in text
    assert "0x3e03" in text
    assert "extent pfn 0x0 order 9 blocks 64" in text


def test_kernel_area_is_filled_without_a_hole() -> None:
    plan = plan_domain(spec(), small_kernel())
    position = 0
    for fill in plan.kernel_area:
        assert fill.at == position
        position += fill.size
    assert position == (plan.layout.kernel_end_pfn - plan.layout.kernel_pfn) * 4096


def test_adjacent_blocks_become_one_run() -> None:
    runs = p2m.runs_of(Extent(0, 9, 4), [0x200, 0x400, 0x1000, 0x1200])  # type: ignore[arg-type]
    assert runs == [Run(0, 0x200, 1024), Run(1024, 0x1000, 1024)]  # type: ignore[arg-type]


def test_p2m_refuses_holes_and_missing_pages() -> None:
    with pytest.raises(HypervisorFault):
        p2m.plan_p2m(4, [Run(0, 7, 1), Run(2, 9, 2)])  # type: ignore[arg-type]
    with pytest.raises(HypervisorFault):
        p2m.plan_p2m(4, [Run(0, 7, 3)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vaddr", "nr_pages", "counts"),
    [
        (0xFFFFFFFF80000000, 0x4000, (1, 1, 32)),
        (0x8000000000, 64, (1, 1, 1)),
        (0x8000000000, 2048, (1, 1, 4)),
        (0x8000000000, 512 * 512 + 1, (1, 2, 513)),
        (0x80001FF000, 2, (1, 1, 2)),
    ],
)
def test_table_counts(vaddr: int, nr_pages: int, counts: tuple[int, int, int]) -> None:
    assert pagetable.table_counts(vaddr, nr_pages) == counts


def test_mapping_that_starts_inside_a_table_translates() -> None:
    """A mapping that begins in the middle of its first L1 and crosses an L2: what no kernel needs."""
    vaddr, nr_pages = 0x8000000000 + (1 << 30) - 3 * 4096, 600
    counts = pagetable.table_counts(vaddr, nr_pages)
    mapping = pagetable.Mapping(vaddr, 0, nr_pages, 1000)  # type: ignore[arg-type]
    runs = [Run(0, 5000, 2000)]  # type: ignore[list-item]
    table = p2m.plan_p2m(2000, runs)
    l4 = pagetable.empty_l4()
    content = pagetable.plan_tables(mapping, l4, runs, table)
    frames = {table[1000 + i]: content[512 * i : 512 * (i + 1)] for i in range(sum(counts))}
    frames[1] = l4
    for page in range(nr_pages):
        where, entry = vaddr + page * 4096, 1 << 12
        for shift in (39, 30, 21, 12):
            entry = frames[entry >> 12][where >> shift & 511]
            assert entry & 1
        assert entry >> 12 == 5000 + page


def test_start_info_has_its_fields_at_the_headers_offsets() -> None:
    plan = plan_domain(spec(cmdline="console=hvc0"), DEBIAN)
    page = startinfo.plan_start_info(
        plan.layout, DEBIAN, "console=hvc0", shared_info_mfn=0x77, store=(0x55, 1), console=(0x66, 2)  # type: ignore[arg-type]
    )  # fmt: skip
    assert len(page) == 4096
    assert page[:15] == b"xen-3.0-x86_64\0"
    for offset, layout, value in (
        (32, "<Q", 128 * 256), (40, "<Q", 0x77000), (48, "<I", 8), (56, "<Q", 0x55), (64, "<I", 1), (72, "<Q", 0x66),
        (80, "<I", 2), (88, "<Q", 0xFFFFFFFF83E03000), (96, "<Q", 35), (104, "<Q", 0x8000000000), (112, "<Q", 0x4043),
        (120, "<Q", 2_700_000), (1152, "<Q", 0x4000), (1160, "<Q", 67),
    ):  # fmt: skip
        assert struct.unpack_from(layout, page, offset)[0] == value, offset
    assert page[128:141] == b"console=hvc0\0"
    assert not any(page[1168:])


def test_shared_info_masks_events_of_every_vcpu() -> None:
    page = startinfo.plan_shared_info()
    assert [index for index, byte in enumerate(page) if byte] == [64 * vcpu + 1 for vcpu in range(32)]


def test_vcpu_context_has_its_registers_at_the_headers_offsets() -> None:
    layout = plan_domain(spec(), DEBIAN).layout
    context = vcpu.plan_vcpu_context(layout, DEBIAN, l4_mfn=0x1234)  # type: ignore[arg-type]
    assert len(context) == 5168
    stack = 0xFFFFFFFF80000000 + (0x3E26 + 1) * 4096
    expected = {
        512: 0x24, 624: 0xFFFFFFFF83E00000, 648: 0xFFFFFFFF8304E1C0, 656: 0xE033, 664: 0x200, 672: stack, 680: 0xE02B,
        4968: 0xE02B, 4976: stack, 5008: 0x1234000, 5096: 0xFFFF0FF0, 5104: 0x400,
    }  # fmt: skip
    words = array("Q", context)
    assert {8 * index: word for index, word in enumerate(words) if word} == expected
