"""Tar records in the one dialect tar2sqfs and mksquashfs both read rightly: GNU headers, PAX for xattrs alone.

Names go into GNU long name records, never into PAX ones; owners are numbers without names; times are those squashfs can
hold. Equal entries give equal bytes.

Source:  GNU tar manual, "Basic Tar Format"; the traps: pipeline notes, mksquashfs 4.5.1 and tar2sqfs 1.2.0 tar input.
"""

from __future__ import annotations

import struct

from pipeline.tree import Entry, Kind

BLOCK = 512
END = bytes(2 * BLOCK)
MTIME_MAX = 2**32 - 1
NAME_MAX = 100

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s167x")
FLAGS = {
    Kind.FILE: b"0",
    Kind.HARDLINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.CHAR: b"3",
    Kind.BLOCK: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}


def padding(size_bytes: int) -> bytes:
    """The zeros that fill the last block of data."""
    return bytes(-size_bytes % BLOCK)


def mtime_s(mtime_ns: int) -> int:
    """Whole seconds as squashfs holds them: from 0 (1970) to 2**32 - 1."""
    return min(max(mtime_ns // 1_000_000_000, 0), MTIME_MAX)


def records(entry: Entry) -> bytes:
    """The header records of an entry; a file's data and its padding follow them."""
    path = (entry.path or b".") + (b"/" if entry.kind is Kind.DIRECTORY else b"")
    out = b""
    if entry.xattrs:
        out += _extra(
            b"x", b"".join(pax_record(b"SCHILY.xattr." + key, entry.xattrs[key]) for key in sorted(entry.xattrs))
        )
    if len(entry.target) > NAME_MAX:
        out += _extra(b"K", entry.target + b"\0")
    if len(path) > NAME_MAX:
        out += _extra(b"L", path + b"\0")
    size = entry.size_bytes if entry.kind is Kind.FILE else 0
    return out + _header(path, entry, FLAGS[entry.kind], size)


def _extra(flag: bytes, data: bytes) -> bytes:
    header = _header(b"././@LongLink", Entry(b"", Kind.FILE, mode=0), flag, len(data))
    return header + data + padding(len(data))


def _header(path: bytes, entry: Entry, flag: bytes, size: int) -> bytes:
    device = entry.kind in (Kind.CHAR, Kind.BLOCK)
    block = bytearray(
        _HEADER.pack(
            path[:NAME_MAX],
            _number(entry.mode, 8),
            _number(entry.uid, 8),
            _number(entry.gid, 8),
            _number(size, 12),
            _number(mtime_s(entry.mtime_ns), 12),
            b" " * 8,
            flag,
            entry.target[:NAME_MAX],
            b"ustar  \0",
            b"",
            b"",
            _number(entry.major, 8) if device else b"",
            _number(entry.minor, 8) if device else b"",
        )
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _number(value: int, width: int) -> bytes:
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return b"\x80" + value.to_bytes(width - 1, "big")


def pax_record(key: bytes, value: bytes) -> bytes:
    """One PAX record, `length key=value\\n`; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    if len(str(size)) != len(str(rest)):
        size = rest + len(str(size))
    return b"%d %s=%s\n" % (size, key, value)
