"""What is done to a file of which there is an O_PATH descriptor, by way of /proc/self/fd."""

from __future__ import annotations

import os


class Itself:
    """Reaches exactly the file a descriptor is of, also if that is a symlink or its name is gone; never beyond it.

    /proc/self/fd is opened once, so it may be out of reach afterwards, in an empty root. It is the one of the process
    that made this, and says nothing of descriptors of its children. All methods but close() raise OSError.
    """

    def __init__(self) -> None:
        self._numbers = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of it; twice is fine."""
        if self._numbers >= 0:
            os.close(self._numbers)
        self._numbers = -1

    def open(self, fd: int, flags: int) -> int:
        """Open it again."""
        return os.open(b"%d" % fd, flags | os.O_CLOEXEC, dir_fd=self._numbers)

    def chown(self, fd: int, uid: int, gid: int) -> None:
        """Change its owner; -1 leaves one."""
        os.chown(b"%d" % fd, uid, gid, dir_fd=self._numbers)

    def chmod(self, fd: int, mode: int) -> None:
        """Change its mode. For what is no symlink."""
        os.chmod(b"%d" % fd, mode, dir_fd=self._numbers)

    def utime(self, fd: int, times_ns: tuple[int, int] | None) -> None:
        """Change the times of its last access and change; None is now."""
        if times_ns is None:
            os.utime(b"%d" % fd, dir_fd=self._numbers)
        else:
            os.utime(b"%d" % fd, ns=times_ns, dir_fd=self._numbers)

    def link(self, fd: int, dir_fd: int, name: bytes) -> None:
        """Give it another name."""
        os.link(b"%d" % fd, name, src_dir_fd=self._numbers, dst_dir_fd=dir_fd, follow_symlinks=True)

    def path(self, fd: int) -> bytes:
        """Where the kernel says it is now; ends in " (deleted)" where it is nowhere."""
        return os.readlink(b"%d" % fd, dir_fd=self._numbers)
