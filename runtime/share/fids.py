"""The numbers a client gives to files, and what the server holds for each."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import NamedTuple

from runtime.share import abi
from runtime.share.files import failure
from runtime.share.listing import Listing
from runtime.share.locks import Locks


class Limits(NamedTuple):
    """Bounds of one zone's use of one directory.

    fids:           files it has a number for, each a descriptor of the server's. Linux keeps one for each file that is
                    in use, and with cache=loose or cache=fscache for each name it remembers: more than any limit.
    open_files:     of those that are open: each another descriptor, and while a directory is read a third.
    message_bytes:  of the largest message either way; a client may ask for less.
    locks:          ranges of each open file that are locked.
    """

    fids: int = 4096
    open_files: int = 1024
    message_bytes: int = 131072
    locks: int = 256


class Fid:
    """A file the client has a number for.

    path_fd:   O_PATH, of the file. uid: of who attached, the owner of what is made through this fid.
    fd:        really open, or -1. flags: those it was opened with.
    """

    __slots__ = ("fd", "flags", "listing", "locks", "path_fd", "uid")

    def __init__(self, path_fd: int, uid: int) -> None:
        self.path_fd, self.uid = path_fd, uid
        self.fd, self.flags = -1, 0
        self.listing: Listing | None = None
        self.locks: Locks | None = None

    @property
    def writable_fd(self) -> int:
        """The open descriptor if it may be written through, else -1."""
        return self.fd if self.flags & abi.ACCESS_MODE in (abi.WRONLY, abi.RDWR) else -1

    def close(self) -> None:
        """Let go of everything, also where it raises OSError: a file system may say then that it could not keep all."""
        if self.listing is not None:
            self.listing.close()
        fd, path_fd = self.fd, self.path_fd
        self.path_fd, self.fd, self.listing, self.locks = -1, -1, None, None
        try:
            if fd >= 0:
                os.close(fd)
        finally:
            if path_fd >= 0:
                os.close(path_fd)


class Fids:
    """All fids of a session. Methods raise OSError."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fids: dict[int, Fid] = {}
        self._open = 0

    def get(self, number: int) -> Fid:
        """Raises EBADF for one that is not in use."""
        fid = self._fids.get(number)
        if fid is None:
            raise failure(errno.EBADF)
        return fid

    def opened(self, number: int) -> Fid:
        """Raises EBADF also for one that is not open."""
        fid = self.get(number)
        if fid.fd < 0:
            raise failure(errno.EBADF)
        return fid

    def check_free(self, number: int) -> None:
        """May it be used for another file? Raises EINVAL, and ENFILE at the limit."""
        if number == abi.NOFID or number in self._fids:
            raise failure(errno.EINVAL)
        if len(self._fids) >= self._limits.fids:
            raise failure(errno.ENFILE)

    def check_openable(self, number: int) -> Fid:
        """May it be opened now? Raises EINVAL if it is open, and ENFILE at the limit."""
        fid = self.get(number)
        if fid.fd >= 0:
            raise failure(errno.EINVAL)
        if self._open >= self._limits.open_files:
            raise failure(errno.ENFILE)
        return fid

    def add(self, number: int, fid: Fid) -> None:
        """After check_free()."""
        self._fids[number] = fid

    def open(self, fid: Fid, fd: int, flags: int) -> None:
        """After check_openable(): it is open, as this descriptor."""
        fid.fd, fid.flags = fd, flags
        fid.locks = Locks(fd, self._limits.locks)
        self._open += 1

    def drop(self, number: int) -> None:
        """It is of no file any more. Raises EBADF."""
        fid = self.get(number)
        del self._fids[number]
        self._open -= fid.fd >= 0
        fid.close()

    def clear(self) -> None:
        """None is in use any more. What a file system says at the end of one of them, there is nobody to be told."""
        for number in list(self._fids):
            with suppress(OSError):
                self.drop(number)
