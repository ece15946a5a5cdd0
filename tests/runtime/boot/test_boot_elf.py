"""The ELF reader against hostile kernels: a typed error or a plan that holds, nothing else."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from support.kernels import BASE, INIT_P2M, NOTES, VIRT_BASE, kernel_elf, notes_of

from runtime.boot import elf
from runtime.boot.errors import BadKernel, BadSpec, OutOfMemory
from runtime.boot.model import DomainSpec, FileRange, KernelInfo
from runtime.boot.plan import plan_domain

UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"


def parse(data: bytes) -> KernelInfo:
    def read_at(offset: int, size: int) -> bytes:
        assert offset >= 0
        assert 0 <= size <= 64 << 10, "a hostile file made us read much"
        return data[offset : offset + size]

    return elf.parse_kernel(read_at, len(data))


def check_plan(info: KernelInfo, size: int) -> None:
    """What must hold of any kernel that is accepted."""
    end = 0
    for segment in info.segments:
        assert segment.paddr >= end
        assert segment.paddr % 4096 == 0
        assert segment.offset + segment.filesz <= size
        assert segment.filesz <= segment.memsz
        end = segment.paddr + segment.memsz
    assert end - info.segments[0].paddr <= elf.MAX_KERNEL_BYTES
    try:
        plan = plan_domain(DomainSpec("z", UUID, FileRange("k", size), memory_mib=512), info)
    except (BadKernel, BadSpec, OutOfMemory):
        return
    area = (plan.layout.kernel_end_pfn - plan.layout.kernel_pfn) * 4096
    assert sum(fill.size for fill in plan.kernel_area) == area
    assert all(fill.at >= 0 and fill.size > 0 for fill in plan.kernel_area)


def test_a_good_kernel_is_read() -> None:
    info = parse(kernel_elf())
    assert info.entry_vaddr == VIRT_BASE + BASE + 0x40
    assert (info.virt_base, info.init_p2m_vaddr, info.hypercall_page_vaddr) == (VIRT_BASE, INIT_P2M, None)
    assert [(s.paddr, s.filesz, s.memsz) for s in info.segments] == [
        (BASE, 0x3000, 0x3000),
        (BASE + 0x100000, 0x1234, 0x4000),
    ]
    assert info.guest_os == "linux"


def test_read_kernel_stops_at_the_end_of_its_range(tmp_path: Path) -> None:
    data = kernel_elf()
    path = tmp_path / "kernel"
    path.write_bytes(data + b"\xff" * 9999)
    assert elf.read_kernel(FileRange(str(path), len(data))) == parse(data)
    with pytest.raises(BadKernel, match="inside the file"):
        elf.read_kernel(FileRange(str(path), len(data) - 1))


HEADER_FIELDS = {
    "e_ident": (0, 4), "class": (4, 1), "e_type": (16, 2), "e_machine": (18, 2), "e_entry": (24, 8), "e_phoff": (32, 8),
    "e_shoff": (40, 8), "e_ehsize": (52, 2), "e_phentsize": (54, 2), "e_phnum": (56, 2), "e_shnum": (60, 2),
}  # fmt: skip
PROGRAM_FIELDS = {
    "p_type": (0, 4), "p_flags": (4, 4), "p_offset": (8, 8), "p_vaddr": (16, 8), "p_paddr": (24, 8),
    "p_filesz": (32, 8), "p_memsz": (40, 8), "p_align": (48, 8),
}  # fmt: skip
FIELDS = [(name, offset, size) for name, (offset, size) in HEADER_FIELDS.items()] + [
    (f"{name}[{index}]", 64 + 56 * index + offset, size)
    for index in range(3)
    for name, (offset, size) in PROGRAM_FIELDS.items()
]


@pytest.mark.parametrize(("name", "offset", "size"), FIELDS, ids=[name for name, _, _ in FIELDS])
def test_any_value_in_any_header_field_is_refused_or_harmless(name: str, offset: int, size: int) -> None:
    good = kernel_elf()
    top = 1 << 8 * size
    (value,) = struct.unpack_from({1: "<B", 2: "<H", 4: "<I", 8: "<Q"}[size], good, offset)
    values = {0, 1, 2, 3, 4095, 4096, top - 1, top - 2, top - 4096, top // 2, top // 2 - 1, value + 1, value - 1}
    values |= {value + 4096, value - 4096, len(good), len(good) - 1, 1 << 32, 1 << 47, 1 << 48, (1 << 63) + 4096}
    for changed in values:
        data = bytearray(good)
        data[offset : offset + size] = (changed % top).to_bytes(size, "little")
        try:
            info = parse(bytes(data))
        except BadKernel:
            continue
        check_plan(info, len(data))


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 15, 16])
def test_lying_notes_are_refused_or_harmless(kind: int) -> None:
    numbers = (0, 1, 4095, 4096, INIT_P2M, VIRT_BASE, 1 << 47, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096)
    slots = tuple(0xFFFF000000000000 | slot << 39 for slot in (256, 271, 272))
    for value in numbers + slots:
        data = kernel_elf(notes=NOTES | {kind: struct.pack("<Q", value)})
        try:
            info = parse(data)
        except BadKernel:
            continue
        check_plan(info, len(data))
        assert info.virt_base >> 39 & 511 not in range(256, 272)
        assert info.init_p2m_vaddr >> 39 & 511 not in range(256, 272)


@pytest.mark.parametrize("length", [0, 3, 5, 16])
def test_note_of_a_strange_length_is_refused(length: int) -> None:
    with pytest.raises(BadKernel, match="1, 2, 4 or 8 bytes"):
        parse(kernel_elf(notes=NOTES | {1: bytes(length)}))


@pytest.mark.parametrize(
    ("missing", "words"), [(1, "ENTRY"), (3, "VIRT_BASE"), (15, "INIT_P2M"), (16, "MOD_START_PFN")]
)
def test_kernel_without_a_needed_note_is_refused_by_its_name(missing: int, words: str) -> None:
    with pytest.raises(BadKernel, match=words):
        parse(kernel_elf(notes={kind: value for kind, value in NOTES.items() if kind != missing}))


def test_hypercall_page_is_optional_and_must_lie_in_the_kernel() -> None:
    page = VIRT_BASE + BASE + 0x1000
    assert parse(kernel_elf(notes=NOTES | {2: struct.pack("<Q", page)})).hypercall_page_vaddr == page
    with pytest.raises(BadKernel, match="HYPERCALL_PAGE"):
        parse(kernel_elf(notes=NOTES | {2: struct.pack("<Q", page + 1)}))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (((0x3000, 0x2000),), "memsz"),
        (((0x100, 0x100001), (0x100, 0x1000)), "overlap"),
        (((0x100, 257 << 20),), "256 MiB"),
        ((), "PT_LOAD"),
    ],
)
def test_wrong_segments_are_refused(sizes: tuple[tuple[int, int], ...], words: str) -> None:
    with pytest.raises(BadKernel, match=words):
        parse(kernel_elf(sizes=sizes))


def test_files_cut_anywhere_are_refused() -> None:
    data = kernel_elf()
    for length in [*range(0, 700, 7), *range(700, len(data), 512)]:
        with pytest.raises(BadKernel):
            parse(data[:length])


def test_random_damage_is_refused_or_harmless() -> None:
    choose = random.Random(4)
    good = kernel_elf()
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(choose.randrange(1, 6)):
            data[choose.randrange(0, 400)] = choose.randrange(256)
        try:
            info = parse(bytes(data))
        except BadKernel:
            continue
        check_plan(info, len(data))


def test_notes_that_lie_about_their_sizes_end_the_parse() -> None:
    for header in (struct.pack("<III", 4, 0xFFFFFFFF, 1), struct.pack("<III", 0xFFFFFFFF, 4, 1)):
        assert elf.xen_notes(notes_of({3: b"12345678"}) + header + b"Xen\0abcd") == {3: b"12345678"}


def test_note_parser_agrees_with_pyelftools() -> None:
    data = kernel_elf()
    (segment,) = [s for s in ELFFile(io.BytesIO(data)).iter_segments() if s["p_type"] == "PT_NOTE"]
    raw = segment.data()
    theirs = {}
    for note in segment.iter_notes():
        start = note["n_offset"] - segment["p_offset"]
        kind = struct.unpack_from("<I", raw, start + 8)[0]
        if note["n_name"] == "Xen":
            at = start + 12 + (note["n_namesz"] + 3 & ~3)
            theirs[kind] = raw[at : at + note["n_descsz"]]
    assert elf.xen_notes(raw) == theirs == NOTES
