"""Files that are published whole and durable or not at all, and the locks that end with their holder.

A lock here is a flock(2) on a file: the kernel drops it when the process ends, however it ends, so there are no stale
ones. The file itself may be removed by whoever holds it; one that waited for it notices and starts over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def take(path: Path, *, shared: bool = False, wait: bool = True) -> int:
    """Lock a file, making it if need be, and return its descriptor; closing that gives the lock up.

    Raises:  BlockingIOError where `wait` is false and another holds it; OSError.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, how)
            if is_named(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(path: Path) -> int:
    # A link is never what its name stands for: to follow it would be to make its target, and to start over for ever.
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o644)
    except PermissionError:  # another user's lock file, in a store that two users share
        return os.open(path, os.O_RDONLY | flags)


def is_named(fd: int, path: Path) -> bool:
    """Is the open file still what its name stands for?"""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, staging: Path | None = None) -> None:
    """Publish `data` as `path`: readers see the old bytes or the new ones, also after a power cut.

    staging: a directory of the same file system for the temporary file, else the one `path` is in. A killed writer
             leaves at most that one file, which the next writer of the same path takes over.
    Raises:  OSError, after which the file may be published but must not be counted on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (staging or path.parent) / f".{path.name}.partial"
    fd = take(temporary)
    try:
        os.ftruncate(fd, 0)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    fsync_dir(path.parent)
