"""What Tgetattr says of a file, what Tsetattr changes of it, and what a qid and Tstatfs are."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import NamedTuple

from runtime.share import abi
from runtime.share.files import Tree, failure, safe_mode

_SECOND_NS = 10**9
_TIMES = abi.SETATTR_ATIME | abi.SETATTR_MTIME
_TIMES_SET = abi.SETATTR_ATIME_SET | abi.SETATTR_MTIME_SET
_U32, _U64 = 2**32 - 1, 2**64 - 1


class Change(NamedTuple):
    """The fields of Tsetattr after the fid; `valid` says which of them count."""

    valid: int
    mode: int
    uid: int
    gid: int
    size: int
    atime_s: int
    atime_ns: int
    mtime_s: int
    mtime_ns: int


def qid_of(status: os.stat_result) -> bytes:
    """A file's qid. Its version is made of the time of the last change, which is all a host says of versions."""
    kind = stat.S_IFMT(status.st_mode)
    qid_type = {stat.S_IFDIR: abi.QTDIR, stat.S_IFLNK: abi.QTSYMLINK}.get(kind, abi.QTFILE)
    changed = status.st_mtime_ns
    return abi.QID.pack(qid_type, (changed ^ changed >> 32) & _U32, status.st_ino)


def attributes_of(status: os.stat_result) -> bytes:
    """The body of Rgetattr: always all basic attributes; btime, gen and data_version are 0, not known."""
    times = [part for ns in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns) for part in _time(ns)]
    return (
        abi.U64.pack(abi.GETATTR_BASIC)
        + qid_of(status)
        + abi.ATTRIBUTES.pack(
            *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_rdev),
            *(status.st_size, status.st_blksize, status.st_blocks),
            *times,
            *(0, 0, 0, 0),
        )
    )


def statfs_of(fd: int) -> bytes:
    """The body of Rstatfs, of the host's file system. Its type is 9P's own. Raises OSError."""
    found = os.statvfs(fd)
    return abi.STATFS.pack(
        *(abi.V9FS_MAGIC, found.f_frsize & _U32, found.f_blocks, found.f_bfree, found.f_bavail),
        *(found.f_files, found.f_ffree, found.f_fsid & _U64, found.f_namemax & _U32),
    )


def change(tree: Tree, fd: int, writable_fd: int, wanted: Change) -> None:
    """Change a file's attributes, each after the other: where one is refused, those before it are changed.

    fd:          O_PATH. writable_fd: one that is open for writing, or -1.
    Raises:  OSError; EOPNOTSUPP for the mode of a symlink, EISDIR and EINVAL for the size of what is no file.
    """
    tree.changing()
    kind = stat.S_IFMT(os.stat(fd).st_mode)
    if wanted.valid & abi.SETATTR_MODE and kind == stat.S_IFLNK:
        raise failure(errno.EOPNOTSUPP)
    uid = wanted.uid if wanted.valid & abi.SETATTR_UID else None
    gid = wanted.gid if wanted.valid & abi.SETATTR_GID else None
    if _U32 in (uid, gid):  # to chown(2) that is "leave it"
        raise failure(errno.EINVAL)
    if uid is not None or gid is not None:
        tree.itself.chown(fd, -1 if uid is None else uid, -1 if gid is None else gid)
    if wanted.valid & abi.SETATTR_MODE:
        tree.itself.chmod(fd, safe_mode(kind, wanted.mode))
    if wanted.valid & abi.SETATTR_SIZE:
        if kind != stat.S_IFREG:
            raise failure(errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL)
        if wanted.size > 2**63 - 1:
            raise failure(errno.EFBIG)
        if writable_fd >= 0:
            tree.disarm(fd, os.stat(fd))
            os.ftruncate(writable_fd, wanted.size)
        else:
            opened = tree.open(fd, abi.WRONLY)
            try:
                os.ftruncate(opened, wanted.size)
            finally:
                os.close(opened)
    if wanted.valid & _TIMES:
        _set_times(tree, fd, wanted)


def _set_times(tree: Tree, fd: int, wanted: Change) -> None:
    if wanted.valid & _TIMES == _TIMES and not wanted.valid & _TIMES_SET:
        tree.itself.utime(fd, None)
        return
    status, now = os.stat(fd), time.time_ns()
    atime, mtime = status.st_atime_ns, status.st_mtime_ns  # os.utime cannot leave one as it is
    if wanted.valid & abi.SETATTR_ATIME:
        atime = _ns(wanted.atime_s, wanted.atime_ns) if wanted.valid & abi.SETATTR_ATIME_SET else now
    if wanted.valid & abi.SETATTR_MTIME:
        mtime = _ns(wanted.mtime_s, wanted.mtime_ns) if wanted.valid & abi.SETATTR_MTIME_SET else now
    tree.itself.utime(fd, (atime, mtime))


def _time(ns: int) -> tuple[int, int]:
    seconds, rest = divmod(ns, _SECOND_NS)
    return seconds & _U64, rest


def _ns(seconds: int, rest: int) -> int:
    """Times before 1970 are negative, in the message as two's complement. Raises OSError."""
    if rest >= _SECOND_NS:
        raise failure(errno.EINVAL)
    return (seconds - (seconds >> 63 << 64)) * _SECOND_NS + rest
