"""A tree as a POSIX pax archive, in the one form that GNU tar, bsdtar and mkfs.erofs all read rightly.

What a ustar header holds is in the header; names over 100 bytes, large numbers, fractions of seconds and xattrs are in
PAX records before it. Owners are numbers without names. Equal entries give equal bytes.

Source:  POSIX.1-2017 pax, "pax Interchange Format"; SCHILY.xattr as star and GNU tar write it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pipeline.progress import Progress
from pipeline.rootfs import Rootfs
from pipeline.tarstream import END, FLAGS, padding, pax_record
from pipeline.tree import Entry, Kind

NAME_MAX = 100
ID_MAX = 8**7 - 1
SIZE_MAX = MTIME_MAX = 8**11 - 1
NS = 1_000_000_000

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")


def write_archive(rootfs: Rootfs, write: Callable[[bytes], object], progress: Progress, total_bytes: int) -> int:
    """Give the whole archive to `write`, in order; returns how many inodes it has."""
    inodes = 0
    with progress.bar("pack", total=total_bytes) as bar:
        for entry in rootfs.entries():
            inodes += entry.kind is not Kind.HARDLINK
            write(records(entry))
            if entry.kind is Kind.FILE:
                rootfs.copy(entry, write)
                write(padding(entry.size_bytes))
                bar.advance(entry.size_bytes)
        write(END)
    return inodes


def records(entry: Entry) -> bytes:
    """The headers of an entry; a file's data, padded to whole blocks, follows them."""
    path = (entry.path or b".") + (b"/" if entry.kind is Kind.DIRECTORY else b"")
    size = entry.size_bytes if entry.kind is Kind.FILE else 0
    pax: dict[bytes, bytes] = {}
    if len(path) > NAME_MAX:
        pax[b"path"] = path
    if len(entry.target) > NAME_MAX:
        pax[b"linkpath"] = entry.target
    if pax and not _is_utf8(b"".join(pax.values())):
        pax = {b"hdrcharset": b"BINARY"} | pax
    seconds, fraction = divmod(entry.mtime_ns, NS)
    if fraction or not 0 <= seconds <= MTIME_MAX:
        pax[b"mtime"] = _decimal(entry.mtime_ns)
    for key, value, most in ((b"uid", entry.uid, ID_MAX), (b"gid", entry.gid, ID_MAX), (b"size", size, SIZE_MAX)):
        if value > most:
            pax[key] = b"%d" % value
    pax |= {b"SCHILY.xattr." + name: entry.xattrs[name] for name in sorted(entry.xattrs)}
    if not pax:
        return _header(entry, path, FLAGS[entry.kind], size)
    data = b"".join(pax_record(key, value) for key, value in pax.items())
    extended = _header(Entry(b"", Kind.FILE), b"././@PaxHeader", b"x", len(data))
    return extended + data + padding(len(data)) + _header(entry, path, FLAGS[entry.kind], size)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decimal(mtime_ns: int) -> bytes:
    seconds, fraction = divmod(abs(mtime_ns), NS)
    sign = b"-" if mtime_ns < 0 else b""
    return sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")


def _header(entry: Entry, path: bytes, flag: bytes, size: int) -> bytes:
    device = entry.kind in (Kind.CHAR, Kind.BLOCK)
    block = bytearray(
        _HEADER.pack(
            path[:NAME_MAX],
            b"%07o\0" % entry.mode,
            b"%07o\0" % (entry.uid if entry.uid <= ID_MAX else 0),
            b"%07o\0" % (entry.gid if entry.gid <= ID_MAX else 0),
            b"%011o\0" % (size if size <= SIZE_MAX else 0),
            b"%011o\0" % min(max(entry.mtime_ns // NS, 0), MTIME_MAX),
            b" " * 8,
            flag,
            entry.target[:NAME_MAX],
            b"ustar\0",
            b"00",
            b"",
            b"",
            b"%07o\0" % entry.major if device else b"",
            b"%07o\0" % entry.minor if device else b"",
            b"",
        )
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
