"""The legacy frame of lz4, which the kernel's build makes: unpacked by libarchive where that is, else by liblz4.

Layout: the magic 0x184c2102, then blocks: their compressed size in 4 bytes, and their data, which unpacks to 8 MiB at
        most. Another magic between two blocks begins another frame.
Source: lz4, doc/lz4_Frame_format.md, "Legacy frame".
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import Any

MAGIC = 0x184C2102
BLOCK_BYTES = 8 << 20
SONAME = "liblz4.so.1"

Unpack = Callable[[bytes, int], bytes]  # the frames, and how many unpacked bytes are enough


@functools.cache
def unpacker() -> Unpack:
    """What this machine has to unpack with; a machine with neither library raises OSError."""
    try:
        import libarchive
    except Exception:  # the package finds no library, and then fails however it happens to
        library = ctypes.CDLL(SONAME)
        library.LZ4_decompress_safe.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        return functools.partial(_by_liblz4, library.LZ4_decompress_safe)
    return functools.partial(_by_libarchive, libarchive)


def _by_libarchive(libarchive: Any, data: bytes, limit: int) -> bytes:
    out = bytearray()
    with libarchive.memory_reader(data, format_name="raw", filter_name="lz4") as archive:
        for entry in archive:
            for block in entry.get_blocks():
                out += block
                if len(out) >= limit:
                    return bytes(out)
    return bytes(out)


def _by_liblz4(decompress: Any, data: bytes, limit: int) -> bytes:
    out, at = bytearray(), 0
    block = ctypes.create_string_buffer(BLOCK_BYTES)
    while at + 4 <= len(data) and len(out) < limit:
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size == MAGIC:
            continue
        if size > len(data) - at:
            raise ValueError(f"a block of {size} bytes, of which {len(data) - at} are there")
        unpacked = decompress(data[at : at + size], block, size, BLOCK_BYTES)
        if unpacked < 0:
            raise ValueError(f"a damaged block at byte {at}")
        out += block.raw[:unpacked]
        at += size
    return bytes(out)
