"""The files of an extension as a raw newc segment: sorted, times 0, written once for every zone that has it."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from pipeline import newc, zonebase
from pipeline.bundle.model import INITRD_SEGMENT
from pipeline.extension.model import ExtensionKind, Facts
from pipeline.oci import Descriptor
from pipeline.rootfs import Rootfs
from pipeline.store import Store
from pipeline.tree import Entry, Kind

_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.HARDLINK: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
}


def write_segment(
    store: Store, rootfs: Rootfs, facts: Facts, placed: Iterable[Entry], plain: dict[bytes, Path]
) -> Descriptor:
    """Store the segment.

    plain:   files to take for modules that are compressed in the image, by path.
    Raises:  BadArchive for what newc cannot hold, and what reading layers raises.
    Note:    newc has no place for extended attributes: what is in the initrd is run by init, which is root.
    """
    with store.scratch() as scratch, store.writer() as out:
        entries = list(_entries(rootfs, placed, plain, scratch))
        if facts.kind is ExtensionKind.INIT:
            entries = zonebase.entries(entries)
        newc.write(entries, out)
        return out.commit(media_type=INITRD_SEGMENT)


def _entries(rootfs: Rootfs, placed: Iterable[Entry], plain: dict[bytes, Path], scratch: Path) -> Iterable[newc.Entry]:
    placed = list(placed)
    by_path = {entry.path: entry for entry in placed}
    linked = {entry.target for entry in placed if entry.kind is Kind.HARDLINK}
    files: dict[bytes, Path] = {}
    for entry in placed:
        # The name a hard link leads to carries mode, owner and bytes of all of them.
        first = by_path[entry.target] if entry.kind is Kind.HARDLINK else entry
        data: bytes | Path = b""
        if first.kind is Kind.FILE:
            if first.path not in files:
                files[first.path] = plain.get(first.path) or _copy(rootfs, first, scratch / str(len(files)))
            data = files[first.path]
        elif first.kind is Kind.SYMLINK:
            data = entry.target
        word = _text(first.path) if entry.kind is Kind.HARDLINK or entry.path in linked else ""
        yield newc.Entry(_text(entry.path), _TYPES[first.kind] | first.mode, data, first.uid, first.gid, hardlink=word)


def _copy(rootfs: Rootfs, entry: Entry, path: Path) -> Path:
    with open(path, "wb") as out:
        rootfs.copy(entry, out.write)
    return path


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
