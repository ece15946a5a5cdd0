"""The newc CPIO form the kernel unpacks as initrd: a deterministic writer and a strict reader.

Layout: 110 bytes of header ("070701" and 13 numbers of 8 hex digits), the name with its NUL padded to 4 bytes, the
data padded to 4 bytes; an entry called TRAILER!!! ends the archive. Segments are whole archives of a length that
divides by 4, so that they can be appended to each other.

Source:  Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c of Linux.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipelineError

MAGIC = b"070701"
HEADER_BYTES = 110
TRAILER = b"TRAILER!!!"
_NUMBERS = re.compile(rb"[0-9A-Fa-f]{104}")
MAX_FILE_BYTES = 0xFFFFFFFF
MAX_NAME_BYTES = 4096  # PATH_MAX with the NUL; init/initramfs.c skips what is longer without a word
CHUNK_BYTES = 1 << 20


class BadArchive(PipelineError):
    """An entry newc cannot hold, or bytes that are no newc archive."""


class Out(Protocol):
    """Where an archive is written to."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class Entry:
    """One name of an archive.

    path:      without a leading slash; "" is refused, the root itself has no entry.
    mode:      file type and permissions, as st_mode has them.
    data:      contents of a file (bytes, or the path of a file that is read while writing), target of a symlink.
    rdev:      (major, minor) of a device node.
    hardlink:  entries with the same non-empty word are names of one inode; they agree in everything but the path.
    """

    path: str
    mode: int
    data: bytes | Path = b""
    uid: int = 0
    gid: int = 0
    rdev: tuple[int, int] = (0, 0)
    hardlink: str = ""


def file(path: str, data: bytes | Path, *, mode: int = 0o644) -> Entry:
    """A regular file owned by root."""
    return Entry(path, stat.S_IFREG | mode, data)


def directory(path: str, *, mode: int = 0o755) -> Entry:
    """A directory owned by root."""
    return Entry(path, stat.S_IFDIR | mode)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, _encode(target))


def char_device(path: str, major: int, minor: int, *, mode: int = 0o600) -> Entry:
    """A character device node owned by root."""
    return Entry(path, stat.S_IFCHR | mode, rdev=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive as bytes; see `write`."""
    return b"".join(_chunks(entries))


def write(entries: Iterable[Entry], out: Out) -> int:
    """Write the archive and return its size in bytes.

    Shape:   sorted by path components (a directory before what is in it), mtime 0, inodes numbered from 1 in that
             order; the last name of a hard-linked file carries the data, as cpio writes them. Size divides by 4.
    Raises:  BadArchive for a path twice, an absolute or dotted path, a file of 4 GiB or more, disagreeing hard links.
    """
    size_bytes = 0
    for chunk in _chunks(entries):
        out.write(chunk)
        size_bytes += len(chunk)
    return size_bytes


def _chunks(entries: Iterable[Entry]) -> Iterator[bytes]:
    ordered = sorted(entries, key=lambda entry: entry.path.split("/"))
    groups: dict[str, list[Entry]] = {}
    previous = ""
    for entry in ordered:
        _check(entry, previous)
        previous = entry.path
        if entry.hardlink:
            groups.setdefault(entry.hardlink, []).append(entry)
    for group in groups.values():
        _check_group(group)
    inodes: dict[str, int] = {}
    next_inode = 1
    for entry in ordered:
        group = groups.get(entry.hardlink, [entry]) if entry.hardlink else [entry]
        inode = inodes.get(entry.hardlink, 0) if entry.hardlink else 0
        if not inode:
            inode, next_inode = next_inode, next_inode + 1
            inodes[entry.hardlink] = inode
        nlink = max(len(group), 2 if stat.S_ISDIR(entry.mode) else 1)
        yield from _one(entry, inode, nlink, with_data=entry is group[-1])
    yield _header(TRAILER, inode=0, mode=0, uid=0, gid=0, nlink=1, size_bytes=0, rdev=(0, 0))


def _check(entry: Entry, previous: str) -> None:
    subject = f"archive entry {entry.path!r}"
    parts = entry.path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in entry.path:
        raise BadArchive(subject, expected="a relative path without empty, . or .. parts", got=repr(entry.path)[:120])
    if entry.path == previous:
        raise BadArchive(subject, expected="each path once", got="it twice")
    if len(_name(entry.path)) + 1 > MAX_NAME_BYTES:
        raise BadArchive(subject, expected=f"a path under {MAX_NAME_BYTES} bytes", got=f"{len(_name(entry.path))}")
    if stat.S_IFMT(entry.mode) not in _KINDS:
        raise BadArchive(subject, expected="a file type newc knows", got=oct(entry.mode))
    size_bytes = _size(entry)
    if size_bytes > MAX_FILE_BYTES:
        raise BadArchive(subject, expected="less than 4 GiB", got=f"{size_bytes} bytes", hint="newc counts in 32 bits")
    if size_bytes and not (stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode)):
        raise BadArchive(subject, expected="no data in what is neither file nor symlink", got=f"{size_bytes} bytes")
    for number in (entry.uid, entry.gid, *entry.rdev):
        if not 0 <= number <= 0xFFFFFFFF:
            raise BadArchive(subject, expected="numbers of 32 bits", got=str(number))


_KINDS = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK}


def _check_group(group: list[Entry]) -> None:
    first = group[0]
    for entry in group:
        # The kernel links regular files only; for other types it would make independent nodes.
        if not stat.S_ISREG(entry.mode):
            raise BadArchive(f"archive entry {entry.path!r}", expected="hard links between files only", got="another")
        same = (entry.mode, entry.uid, entry.gid, entry.data) == (first.mode, first.uid, first.gid, first.data)
        if not same:
            raise BadArchive(
                f"archive entry {entry.path!r}",
                expected=f"the mode, owner and data of {first.path!r}, which it is a hard link of",
                got="others",
            )


def _size(entry: Entry) -> int:
    return entry.data.stat().st_size if isinstance(entry.data, Path) else len(entry.data)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _name(path: str) -> bytes:
    # A file really called TRAILER!!! in the root would end the archive for every reader; "./" keeps it a name.
    name = _encode(path)
    return b"./" + name if name == TRAILER else name


def _one(entry: Entry, inode: int, nlink: int, *, with_data: bool) -> Iterator[bytes]:
    size_bytes = _size(entry) if with_data else 0
    yield _header(
        _name(entry.path),
        inode=inode,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        nlink=nlink,
        size_bytes=size_bytes,
        rdev=entry.rdev,
    )
    if isinstance(entry.data, Path) and with_data:
        yield from _read_exactly(entry.data, size_bytes)
    elif size_bytes:
        assert isinstance(entry.data, bytes)
        yield entry.data
    if padding := -size_bytes % 4:
        yield bytes(padding)


def _read_exactly(path: Path, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    with open(path, "rb") as source:
        while left:
            chunk = source.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise BadArchive(str(path), expected=f"{size_bytes} bytes", got=f"{size_bytes - left}", temporary=True)
            left -= len(chunk)
            yield chunk


def _header(
    name: bytes, *, inode: int, mode: int, uid: int, gid: int, nlink: int, size_bytes: int, rdev: tuple[int, int]
) -> bytes:
    numbers = (inode, mode, uid, gid, nlink, 0, size_bytes, 0, 0, *rdev, len(name) + 1, 0)
    head = MAGIC + b"".join(b"%08x" % number for number in numbers) + name + b"\0"
    return head + bytes(-len(head) % 4)


def read(data: bytes | memoryview, *, subject: str = "cpio archive") -> list[Entry]:
    """The entries of one archive, in its order; data of hard links is given to each of their names.

    Raises:  BadArchive for anything `write` would not have written, except for the order of the entries.
    """
    view = memoryview(data)
    if len(view) % 4:
        raise BadArchive(subject, expected="a length that divides by 4", got=f"{len(view)} bytes")
    found: list[tuple[Entry, int, int]] = []
    offset = 0
    while True:
        numbers, name, offset = _read_header(view, offset, subject)
        size_bytes = numbers[6]
        if name == TRAILER:
            if size_bytes or any(view[offset:]):
                raise BadArchive(subject, expected="nothing but zeros behind TRAILER!!!", got="more")
            break
        if size_bytes > len(view) - offset:
            raise BadArchive(subject, expected=f"{size_bytes} bytes of {name!r}", got=f"{len(view) - offset}")
        content = bytes(view[offset : offset + size_bytes])
        offset += size_bytes + (-size_bytes % 4)
        path = name.removeprefix(b"./").decode("utf-8", "surrogateescape")
        nlink = 1 if stat.S_ISDIR(numbers[1]) else numbers[4]
        entry = Entry(path, numbers[1], content, numbers[2], numbers[3], (numbers[9], numbers[10]))
        found.append((entry, numbers[0], nlink))
    shared = {inode: entry.data for entry, inode, nlink in found if nlink > 1 and entry.data}
    return [
        Entry(e.path, e.mode, shared.get(inode, b""), e.uid, e.gid, e.rdev, str(inode)) if nlink > 1 else e
        for e, inode, nlink in found
    ]


def scan(path: Path) -> Iterator[Entry]:
    """The entries of an archive in a file, without the data of files; of hard links each has the inode as its word.

    Raises:  BadArchive.
    """
    with open(path, "rb") as source:
        size_bytes = os.fstat(source.fileno()).st_size
        while True:
            at = source.tell()
            head = source.read(HEADER_BYTES + MAX_NAME_BYTES + 3)
            numbers, name, used = _read_header(memoryview(head), 0, f"{path.name} at byte {at}")
            if name == TRAILER:
                return
            end = at + used + numbers[6]
            if end > size_bytes:
                raise BadArchive(path.name, expected=f"{numbers[6]} bytes of {name!r}", got=f"{size_bytes - at - used}")
            source.seek(end + (-end % 4))
            link = str(numbers[0]) if numbers[4] > 1 and not stat.S_ISDIR(numbers[1]) else ""
            text = name.removeprefix(b"./").decode("utf-8", "surrogateescape")
            yield Entry(text, numbers[1], b"", numbers[2], numbers[3], (numbers[9], numbers[10]), link)


def _read_header(view: memoryview, offset: int, subject: str) -> tuple[list[int], bytes, int]:
    head = bytes(view[offset : offset + HEADER_BYTES])
    if len(head) < HEADER_BYTES or head[:6] != MAGIC:
        raise BadArchive(subject, expected=f"a newc header at byte {offset}", got=repr(head[:16]))
    if not _NUMBERS.fullmatch(head, len(MAGIC)):  # int() would take signs, blanks and underscores too
        raise BadArchive(subject, expected=f"hex digits in the header at byte {offset}", got=repr(head[:40]))
    numbers = [int(head[at : at + 8], 16) for at in range(6, HEADER_BYTES, 8)]
    size = numbers[11]
    name = bytes(view[offset + HEADER_BYTES : offset + HEADER_BYTES + size])
    if not 1 < size <= MAX_NAME_BYTES or len(name) != size or name.find(b"\0") != size - 1:
        raise BadArchive(subject, expected=f"a name of {size} bytes at byte {offset}", got=repr(name[:40]))
    end = offset + HEADER_BYTES + size
    return numbers, name[:-1], end + (-end % 4)
