"""Entries of a root as a squashfs blob, by the project's one writer."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator

from pipeline import tree
from pipeline.build.layer import contents
from pipeline.build.roottree import Entry, directory
from pipeline.oci import Descriptor
from pipeline.squashfs import squash_entries
from pipeline.store import Store

NS = 1_000_000_000
KINDS = {
    tarfile.REGTYPE: tree.Kind.FILE,
    tarfile.SYMTYPE: tree.Kind.SYMLINK,
    tarfile.DIRTYPE: tree.Kind.DIRECTORY,
    tarfile.CHRTYPE: tree.Kind.CHAR,
    tarfile.BLKTYPE: tree.Kind.BLOCK,
    tarfile.FIFOTYPE: tree.Kind.FIFO,
}


def write_squashfs(
    store: Store,
    entries: Iterable[Entry],
    *,
    epoch: int,
    compression: str,
    media_type: str = "application/octet-stream",
) -> Descriptor:
    """Put the squashfs of these entries, which must be sorted, into the store; its top is a directory of `epoch`.

    Raises:  SquashFailed, ToolMissing, BadCompressionName.
    """

    def both() -> Iterator[tuple[tree.Entry, Iterable[bytes]]]:
        yield tree_entry(directory("", epoch)), ()
        for entry in entries:
            converted = tree_entry(entry)
            yield converted, contents(entry) if converted.kind is tree.Kind.FILE else ()

    return squash_entries(store, both(), compression=compression, media_type=media_type)


def tree_entry(entry: Entry) -> tree.Entry:
    """An entry as the pipeline's other stages spell it: of a hardlinked file, the first name carries the bytes."""
    linked = bool(entry.group) and entry.path != entry.group[0]
    return tree.Entry(
        path=os.fsencode(entry.path),
        kind=tree.Kind.HARDLINK if linked else KINDS[entry.kind],
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_ns=entry.mtime * NS,
        target=os.fsencode(entry.group[0] if linked else entry.linkname),
        xattrs={} if linked else {os.fsencode(key): value for key, value in entry.xattrs},
        major=entry.device[0],
        minor=entry.device[1],
        size_bytes=0 if linked else entry.size_bytes,
    )
