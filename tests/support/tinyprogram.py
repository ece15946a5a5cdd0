"""A program of a few dozen bytes, put together by hand: nothing but what a test wants of it, and no compiler."""

from __future__ import annotations

import struct

BASE = 0x400000
_EHDR, _PHDR = 64, 56


def elf(code: bytes) -> bytes:
    """A static x86-64 program of one segment that begins with its code."""
    entry = BASE + _EHDR + _PHDR
    size = _EHDR + _PHDR + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, _EHDR, 0, 0, _EHDR, _PHDR, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000) + code


EXIT = bytes.fromhex("31ff b83c000000 0f05")  # xor edi,edi; mov eax,60; syscall
# mov eax,1; mov edi,2; mov rsi,rsp; mov edx,1; syscall
WRITE = bytes.fromhex("b801000000 bf02000000 4889e6 ba01000000 0f05")


def loop(times: int) -> bytes:
    """mov ecx,times; again: dec ecx; jnz again. So many instructions, twice, and one."""
    return b"\xb9" + struct.pack("<I", times) + bytes.fromhex("ffc9 75fc")


def fill(size: int) -> bytes:
    """mov ecx,size; lea rdi,[rsp-8000]; rep stosb. Three instructions, whatever the size."""
    return b"\xb9" + struct.pack("<I", size) + bytes.fromhex("488dbc24c0e0ffff f3aa")
