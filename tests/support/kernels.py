"""Small ELF kernels with Xen notes, for plans and for the fake Xen."""

from __future__ import annotations

import struct

VIRT_BASE = 0xFFFFFFFF80000000
INIT_P2M = 0x8000000000
BASE = 0x1000000  # paddr of the first segment, as Linux has it

NOTES: dict[int, bytes] = {
    1: struct.pack("<Q", VIRT_BASE + BASE + 0x40),
    3: struct.pack("<Q", VIRT_BASE),
    4: struct.pack("<Q", 0),
    6: b"linux\0",
    15: struct.pack("<Q", INIT_P2M),
    16: struct.pack("<I", 1),
}


def notes_of(notes: dict[int, bytes]) -> bytes:
    """PT_NOTE contents, with a GNU note before the Xen ones."""
    out = struct.pack("<III", 4, 4, 1) + b"GNU\0" + b"\1\2\3\4"
    for kind, descriptor in notes.items():
        out += struct.pack("<III", 4, len(descriptor), kind) + b"Xen\0"
        out += descriptor + bytes(-len(descriptor) % 4)
    return out


def kernel_elf(
    *, notes: dict[int, bytes] | None = None, sizes: tuple[tuple[int, int], ...] = ((0x3000, 0x3000), (0x1234, 0x4000))
) -> bytes:
    """A kernel with one segment per (filesz, memsz), 1 MiB apart, each filled with its own byte."""
    body = notes_of(NOTES if notes is None else notes)
    headers, count = b"", len(sizes) + 1
    position = 64 + 56 * count
    headers += struct.pack("<IIQQQQQQ", 4, 4, position, 0, 0, len(body), len(body), 4)
    position = -(-(position + len(body)) // 4096) * 4096
    data = b""
    for index, (filesz, memsz) in enumerate(sizes):
        paddr = BASE + index * 0x100000
        headers += struct.pack("<IIQQQQQQ", 1, 5, position + len(data), VIRT_BASE + paddr, paddr, filesz, memsz, 4096)
        data += bytes([0x11 * (index + 1)]) * filesz
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE, 64, 0, 0, 64, 56, count, 0, 0, 0)
    return (header + headers + body).ljust(position, b"\0") + data
