"""Volumes as `-v` and a spec write them: what is mounted in a zone besides its image."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import VOLUME_SQUASHFS, ModuleWish, Volume
from pipeline.oci import Descriptor

if TYPE_CHECKING:
    from pipeline.store import Store

FORMS = "tmpfs:TARGET[:size=N[m|g]][:ro], or SOURCE:TARGET[:ro] with a squashfs file, a block device or a directory"
UNITS_MIB = {"m": 1, "g": 1 << 10}
DEVICES = "/dev"
DISKS = ("squashfs", "block")  # the kinds that take one
# xvda and xvdb are the zone's own, and beyond xvdp there are no names.
MOST_DISKS = 14
MAGIC = b"hsqs"
_USED_AT, _SUPERBLOCK_BYTES = 40, 96  # struct squashfs_super_block of fs/squashfs/squashfs_fs.h: bytes_used
_BLOCK_BYTES = 4096
_READ_BYTES = 1 << 20
# The zone's own file systems: over these nothing of the user's may be laid.
RESERVED = ("/", "/dev", "/proc", "/sys")


def parse_volume(text: str, *, subject: str) -> Volume:
    """Read a volume. Raises BadSpec."""
    source, *rest = text.split(":")
    if not source or not rest:
        raise BadSpec(subject, expected=FORMS, got=repr(text))
    target, *options = rest
    kind = _elsewhere(source, subject) if "dir" in options else _kind(source, subject)
    volume = Volume(_target(target, subject), *kind, readonly="ro" in options)
    for option in options:
        if size := re.fullmatch(r"size=([1-9][0-9]{0,5})([mg])?", option):
            if volume.kind != "tmpfs":
                raise BadSpec(subject, expected="a size for tmpfs alone", got=repr(text))
            volume = Volume(volume.target, "tmpfs", "", volume.readonly, int(size[1]) * UNITS_MIB[size[2] or "m"])
        elif option not in ("ro", "rw", "dir"):
            raise BadSpec(subject, expected="ro, rw, dir or size=N[m|g] as an option", got=repr(option))
    if volume.kind == "squashfs":
        if "rw" in options:
            raise BadSpec(subject, expected="a squashfs file read-only, as it always is", got=repr(text))
        return replace(volume, readonly=True)
    return volume


def directory(source: str, target: str, *, subject: str) -> Volume:
    """A directory of the host that runs the zone, which nobody has looked at yet. Raises BadSpec."""
    kind, path = _elsewhere(source, subject)
    return Volume(_target(target, subject), kind, path)


def modules_of(volumes: Sequence[Volume]) -> tuple[ModuleWish, ...]:
    """The kernel modules that volumes take; those that are a part of the kernel need no loading."""
    for volume in volumes:
        if volume.kind == "directory":
            needed_by = (
                f"the directory {volume.source} is mounted by 9p, CONFIG_NET_9P_XEN and CONFIG_9P_FS, "
                "which recipe:debian has as modules"
            )
            return tuple(ModuleWish(name, needed_by=needed_by) for name in ("9pnet_xen", "9p"))
    return ()


def check_disks(volumes: Sequence[Volume], *, subject: str) -> None:
    """Raises BadSpec where a zone has not the names for so many disks."""
    count = sum(volume.kind in DISKS for volume in volumes)
    if count > MOST_DISKS:
        raise BadSpec(subject, expected=f"at most {MOST_DISKS} files and devices", got=str(count))


def bundled(volumes: Sequence[Volume], store: Store, *, subject: str) -> tuple[Volume, ...]:
    """The volumes as a bundle has them: the bytes of files are blobs, of which no later change of a file is one.

    Raises:  BadSpec for a file that has gone, or is cut off.
    """
    return tuple(
        replace(
            volume, source=Path(volume.source).name, blob=_blob(volume.source, store, f"{subject}: {volume.source}")
        )
        if volume.kind == "squashfs"
        else volume
        for volume in volumes
    )


def _blob(path: str, store: Store, subject: str) -> Descriptor:
    try:
        with open(path, "rb") as file, store.writer() as writer:
            head = file.read(_SUPERBLOCK_BYTES)
            writer.write(head)
            while data := file.read(_READ_BYTES):
                writer.write(data)
            _refuse_cut(head, writer.size_bytes, subject)
            writer.write(bytes(-writer.size_bytes % _BLOCK_BYTES))  # a disk has whole blocks only
            return writer.commit(media_type=VOLUME_SQUASHFS)
    except FileNotFoundError as error:
        raise BadSpec(subject, expected="the file still there", got=os.strerror(error.errno or 0)) from error


def _refuse_cut(head: bytes, size_bytes: int, subject: str) -> None:
    if len(head) < _SUPERBLOCK_BYTES or not head.startswith(MAGIC):
        raise BadSpec(subject, expected="a squashfs file", got="another kind of file")
    (used_bytes,) = struct.unpack_from("<Q", head, _USED_AT)
    if used_bytes > size_bytes:
        raise BadSpec(subject, expected=f"the {used_bytes} bytes its superblock names", got=f"{size_bytes}")


def _target(text: str, subject: str) -> str:
    path = posixpath.normpath(text)
    inside = any(path == place or path.startswith(f"{place}/") for place in RESERVED[1:])
    if not text.startswith("/") or "\0" in text or path.lstrip("/") == "" or inside:
        raise BadSpec(subject, expected=f"an absolute target outside {', '.join(RESERVED)}", got=repr(text))
    return "/" + path.lstrip("/")


def _kind(source: str, subject: str) -> tuple[str, str]:
    """(kind, source) of what is mounted."""
    if source == "tmpfs":
        return "tmpfs", ""
    if "/" not in source:
        hint = "volumes with names are not kept here; tmpfs:TARGET is memory"
        raise BadSpec(subject, expected=FORMS, got=f"{source!r}", hint=hint)
    path = Path(source).absolute()
    # A device is one of the host that runs the zone, which need not be this machine: zoned looks at it.
    if not path.exists() and posixpath.normpath(path).startswith(f"{DEVICES}/"):
        return "block", posixpath.normpath(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadSpec(subject, expected="a source that is there", got=f"{source}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        return "directory", str(path)
    if stat.S_ISBLK(mode):
        return "block", str(path)
    if stat.S_ISREG(mode) and _magic(path) == MAGIC:
        return "squashfs", str(path)
    raise BadSpec(f"{subject}: {source}", expected="a squashfs file, a block device or a directory", got="another kind")


def _elsewhere(source: str, subject: str) -> tuple[str, str]:
    """A directory of the host that runs the zone, which need not be this machine: zoned looks at it."""
    if not source.startswith("/") or "\0" in source:
        raise BadSpec(subject, expected="the absolute path of a directory of the zone's host", got=repr(source))
    return "directory", posixpath.normpath(source)


def _magic(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4)
