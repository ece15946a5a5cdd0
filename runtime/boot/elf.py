"""Reads a kernel's ELF headers and Xen notes. The file is hostile: every number is checked before it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from runtime.boot.abi import elfnote
from runtime.boot.abi.start_info import ADDRESS_BITS, PAGE_SIZE
from runtime.boot.errors import BadKernel
from runtime.boot.model import FileRange, KernelInfo, Segment

MAX_KERNEL_BYTES = 256 << 20
_MAX_PROGRAM_HEADERS = 128
_MAX_NOTE_BYTES = 64 << 10
_MAX_ADDRESS = 1 << 64

ReadAt = Callable[[int, int], bytes]


def read_kernel(kernel: FileRange) -> KernelInfo:
    """Read what a boot must know of a kernel file.

    Raises:  BadKernel; OSError where the file cannot be read.
    Effects: reads headers and notes only, 20 KiB or so.
    """
    descriptor = os.open(kernel.path, os.O_RDONLY | os.O_CLOEXEC)
    try:

        def read_at(offset: int, size: int) -> bytes:
            return os.pread(descriptor, max(0, min(size, kernel.size_bytes - offset)), offset)

        return parse_kernel(read_at, kernel.size_bytes, subject=kernel.path)
    finally:
        os.close(descriptor)


def parse_kernel(read_at: ReadAt, size_bytes: int, *, subject: str = "kernel") -> KernelInfo:
    """Parse and check a kernel.

    Shape:   read_at(offset, size) gives at most `size` bytes; segments come sorted by paddr, disjoint, page-aligned.
    Raises:  BadKernel, for everything a PV start could trip over.
    Source:  xen/include/public/elfnote.h; System V ABI.
    """
    loads: list[Segment] = []
    notes: dict[int, bytes] = {}
    for kind, segment in _program_headers(read_at, size_bytes, subject):
        if kind == elfnote.PT_LOAD and segment.memsz:
            loads.append(segment)
        elif kind == elfnote.PT_NOTE and segment.filesz <= _MAX_NOTE_BYTES:
            notes.update(xen_notes(read_at(segment.offset, segment.filesz)))
    segments = _checked_segments(loads, size_bytes, subject)
    if elfnote.ENTRY not in notes or elfnote.VIRT_BASE not in notes:
        hint = "it was built without CONFIG_XEN_PV"
        raise BadKernel(subject, expected="a kernel with the Xen notes ENTRY and VIRT_BASE", got="none", hint=hint)
    for note, name in ((elfnote.INIT_P2M, "INIT_P2M"), (elfnote.MOD_START_PFN, "MOD_START_PFN")):
        if note not in notes:
            raise BadKernel(subject, expected=f"the Xen note {name}", got="none", hint="Linux has it since 3.10")
    if not _number(notes, elfnote.MOD_START_PFN, subject):
        raise BadKernel(subject, expected="MOD_START_PFN 1 (an initrd without a mapping)", got="0")
    page = _number(notes, elfnote.HYPERCALL_PAGE, subject) if elfnote.HYPERCALL_PAGE in notes else _MAX_ADDRESS - 1
    info = KernelInfo(
        entry_vaddr=_number(notes, elfnote.ENTRY, subject),
        virt_base=_number(notes, elfnote.VIRT_BASE, subject),
        paddr_offset=_number(notes, elfnote.PADDR_OFFSET, subject) if elfnote.PADDR_OFFSET in notes else 0,
        init_p2m_vaddr=_number(notes, elfnote.INIT_P2M, subject),
        hypercall_page_vaddr=None if page == _MAX_ADDRESS - 1 else page,  # all ones: "none", as libelf reads it
        segments=segments,
        guest_os=notes.get(elfnote.GUEST_OS, b"").rstrip(b"\0").decode("ascii", "replace")[:32],
    )
    _check_addresses(info, subject)
    return info


def _program_headers(read_at: ReadAt, size_bytes: int, subject: str) -> Iterator[tuple[int, Segment]]:
    header = read_at(0, elfnote.ELF_HEADER.size)
    if len(header) < elfnote.ELF_HEADER.size or not header.startswith(elfnote.ELF_IDENT_64_LSB):
        raise BadKernel(subject, expected="an uncompressed 64-bit ELF kernel", got=f"a file that begins {header[:4]!r}")
    _, kind, machine, _, _, phoff, _, _, _, phentsize, phnum, *_ = elfnote.ELF_HEADER.unpack(header)
    if machine != elfnote.EM_X86_64 or kind not in (elfnote.ET_EXEC, elfnote.ET_DYN):
        raise BadKernel(subject, expected="an x86-64 kernel", got=f"ELF machine {machine}, type {kind}")
    if phentsize != elfnote.PROGRAM_HEADER.size or not 0 < phnum <= _MAX_PROGRAM_HEADERS:
        got = f"{phnum} of {phentsize} bytes"
        raise BadKernel(subject, expected=f"1 to {_MAX_PROGRAM_HEADERS} program headers of 56 bytes", got=got)
    table_bytes = phnum * phentsize
    if phoff + table_bytes > size_bytes:
        raise BadKernel(subject, expected="program headers inside the file", got=f"offset {phoff:#x}")
    table = read_at(phoff, table_bytes)
    if len(table) != table_bytes:
        raise BadKernel(subject, expected=f"{table_bytes} bytes of program headers", got=f"{len(table)}")
    for p_type, _, offset, _, paddr, filesz, memsz, _ in elfnote.PROGRAM_HEADER.iter_unpack(table):
        # Only p_paddr places a segment: Linux's per-cpu segment has p_vaddr 0.
        if p_type in (elfnote.PT_LOAD, elfnote.PT_NOTE) and offset + filesz > size_bytes:
            got = f"bytes {offset:#x} to {offset + filesz:#x} of {size_bytes:#x}"
            raise BadKernel(subject, expected="segments inside the file", got=got)
        yield p_type, Segment(offset, paddr, filesz, memsz)


def _checked_segments(loads: list[Segment], size_bytes: int, subject: str) -> tuple[Segment, ...]:
    if not loads:
        raise BadKernel(subject, expected="a PT_LOAD segment", got="none")
    loads.sort(key=lambda segment: segment.paddr)
    end = 0
    for segment in loads:
        where = f"{segment.paddr:#x} + {segment.memsz:#x}"
        if segment.memsz < segment.filesz:
            raise BadKernel(subject, expected=f"memsz of at least {segment.filesz:#x}", got=f"{segment.memsz:#x}")
        if segment.paddr % PAGE_SIZE:
            raise BadKernel(subject, expected="segments that begin on a page", got=where)
        if segment.paddr < end:
            raise BadKernel(subject, expected="segments that do not overlap", got=f"{where} below {end:#x}")
        end = segment.paddr + segment.memsz
    if end - loads[0].paddr > MAX_KERNEL_BYTES or end > 1 << ADDRESS_BITS:
        got = f"{loads[0].paddr:#x} to {end:#x}"
        raise BadKernel(subject, expected=f"a kernel of at most {MAX_KERNEL_BYTES >> 20} MiB", got=got)
    return tuple(loads)


def _check_addresses(info: KernelInfo, subject: str) -> None:
    start, end = info.segments[0].paddr, info.segments[-1].paddr + info.segments[-1].memsz
    if info.paddr_offset > start or info.paddr_offset % PAGE_SIZE:
        raise BadKernel(subject, expected=f"PADDR_OFFSET up to {start:#x}", got=f"{info.paddr_offset:#x}")
    for name, vaddr in (("VIRT_BASE", info.virt_base), ("INIT_P2M", info.init_p2m_vaddr)):
        slot = vaddr >> 39 & 511
        canonical = vaddr >> 47 in (0, (1 << 17) - 1)
        # L4 slots 256 to 271 are Xen's own: arch-x86/xen-x86_64.h, HYPERVISOR_VIRT_START.
        if not canonical or vaddr % PAGE_SIZE or 256 <= slot < 272:
            raise BadKernel(subject, expected=f"{name} on a page of the guest's own space", got=f"{vaddr:#x}")
    mapped_end = info.virt_base + end - info.paddr_offset
    if mapped_end > _MAX_ADDRESS or info.virt_base >> 39 == info.init_p2m_vaddr >> 39:
        got = f"VIRT_BASE {info.virt_base:#x}, INIT_P2M {info.init_p2m_vaddr:#x}"
        raise BadKernel(subject, expected="room for kernel and p2m table in different 512 GiB", got=got)
    targets = [("ENTRY", info.entry_vaddr, 1)]
    if info.hypercall_page_vaddr is not None:
        targets.append(("HYPERCALL_PAGE", info.hypercall_page_vaddr, PAGE_SIZE))
    for name, vaddr, length in targets:
        paddr = vaddr - info.virt_base + info.paddr_offset
        inside = any(s.paddr <= paddr and paddr + length <= s.paddr + s.memsz for s in info.segments)
        if not inside or (length == PAGE_SIZE and paddr % PAGE_SIZE):
            raise BadKernel(subject, expected=f"{name} in a loaded segment", got=f"{vaddr:#x}")


def _number(notes: dict[int, bytes], note: int, subject: str) -> int:
    if len(notes[note]) not in (1, 2, 4, 8):
        raise BadKernel(subject, expected=f"Xen note {note} of 1, 2, 4 or 8 bytes", got=f"{len(notes[note])}")
    return int.from_bytes(notes[note], "little")


def xen_notes(data: bytes) -> dict[int, bytes]:
    """The Xen notes of a PT_NOTE: type to descriptor. A note cut off by the end is left out.

    pyelftools gives types 1 to 5 GNU's names whoever owns the note, and decodes type 3 as text; hence our own.
    """
    notes: dict[int, bytes] = {}
    position = 0
    while position + elfnote.NOTE_HEADER.size <= len(data):
        namesz, descsz, kind = elfnote.NOTE_HEADER.unpack_from(data, position)
        name = position + elfnote.NOTE_HEADER.size
        descriptor = name + (namesz + 3 & ~3)
        if descriptor + descsz > len(data):
            break
        if data[name : name + namesz] == elfnote.XEN_OWNER:
            notes[kind] = data[descriptor : descriptor + descsz]
        position = descriptor + (descsz + 3 & ~3)
    return notes
