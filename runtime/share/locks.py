"""Locks of one open file, which the host's kernel keeps: they hold against its programs and against other zones.

They are those of the open file description (F_OFD_SETLK), so what a fid has locked ends with the fid. The zone's
kernel settles first what its own processes want of each other; it asks here once for each file it has open, so a
process of the zone that has a file open twice is two here.
Source:  fcntl(2), "Open file description locks"; Linux, fs/9p/vfs_file.c, v9fs_file_do_lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from runtime.share import abi

OFFSET_MAX = 2**63 - 1
# l_type, l_whence, l_start, l_len, l_pid: include/uapi/asm-generic/fcntl.h, on 64 bits.
_FLOCK = struct.Struct("hh4xqqi4x")
_KINDS = {abi.LOCK_RDLCK: fcntl.F_RDLCK, abi.LOCK_WRLCK: fcntl.F_WRLCK, abi.LOCK_UNLCK: fcntl.F_UNLCK}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class Range(NamedTuple):
    """Bytes that are locked. end: the last one of them. kind: abi.LOCK_RDLCK or LOCK_WRLCK."""

    start: int
    end: int
    kind: int


class Locks:
    """The locks of one open file, whose descriptor stays the caller's.

    limit:  of ranges, as the kernel keeps them: nothing else bounds the memory of the host's kernel that they take.
    """

    def __init__(self, fd: int, limit: int) -> None:
        self._fd, self._limit = fd, limit
        self.ranges: list[Range] = []

    def set(self, kind: int, start: int, length: int) -> int:
        """Lock or unlock; never waits: a client told that it is LOCK_BLOCKED asks again.

        Raises:  OSError; EBADF where the file is not open for what the lock needs, which flock(1) understands.
        """
        end = _end_of(kind, start, length)
        ranges = ranges_after(self.ranges, Range(start, end, kind))
        if len(ranges) > max(self._limit, len(self.ranges)):
            return abi.LOCK_ERROR
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(_KINDS[kind], os.SEEK_SET, start, length, 0))
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.EACCES):
                return abi.LOCK_BLOCKED
            if problem.errno == errno.ENOLCK:
                return abi.LOCK_ERROR
            raise
        self.ranges = ranges
        return abi.LOCK_SUCCESS

    def get(self, kind: int, start: int, length: int) -> tuple[int, int, int]:
        """What would be in the way of a lock: kind, start, length; of kind LOCK_UNLCK where nothing is. Raises OSError.

        Whose it is, is not said: it may be a process of the host's.
        """
        _end_of(kind, start, length)
        if kind == abi.LOCK_UNLCK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        asked = _FLOCK.pack(_KINDS[kind], os.SEEK_SET, start, length, 0)
        found, _, found_start, found_length, _ = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, asked))
        if found == fcntl.F_UNLCK:
            return abi.LOCK_UNLCK, start, length
        return _NAMES[found], found_start, found_length


def ranges_after(ranges: Sequence[Range], change: Range) -> list[Range]:
    """What is locked once `change` is, as the kernel keeps it: cut where it overlaps, joined where it touches its like.

    Source:  fs/locks.c, posix_lock_inode.
    """
    kept = []
    for item in ranges:
        if item.end < change.start or item.start > change.end:
            kept.append(item)
            continue
        if item.start < change.start:
            kept.append(Range(item.start, change.start - 1, item.kind))
        if item.end > change.end:
            kept.append(Range(change.end + 1, item.end, item.kind))
    if change.kind != abi.LOCK_UNLCK:
        kept.append(change)
    joined: list[Range] = []
    for item in sorted(kept):
        if joined and joined[-1].kind == item.kind and joined[-1].end + 1 == item.start:
            joined[-1] = joined[-1]._replace(end=item.end)
        else:
            joined.append(item)
    return joined


def _end_of(kind: int, start: int, length: int) -> int:
    """The last byte; a length of 0 is all that follows. Raises OSError."""
    if kind not in _KINDS or start > OFFSET_MAX or length > OFFSET_MAX - start:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return start + length - 1 if length else OFFSET_MAX
