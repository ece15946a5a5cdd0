"""Kernel modules with nothing in them but what they say of themselves."""

from __future__ import annotations

import struct


def module_of(*strings: str) -> bytes:
    """A 64-bit ELF file with a .modinfo section of these `key=value` strings."""
    info = b"".join(text.encode() + b"\0" for text in strings)
    names = b"\0.modinfo\0.shstrtab\0"
    offset = 64 + len(info) + len(names)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, offset, 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64)
    for name_at, kind, at, size in ((1, 1, 64, len(info)), (10, 3, 64 + len(info), len(names))):
        sections += struct.pack("<IIQQQQIIQQ", name_at, kind, 0, 0, at, size, 0, 0, 1, 0)
    return header + info + names + sections
