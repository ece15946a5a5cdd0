"""The system calls a share's process may make once it serves, as a seccomp filter.

What all processes of Python's make is in runtime/pythoncalls.py. A process that makes another call is killed, and its
zone waits for the directory: whatever a request may lead to is on the lists, and what the process would only make with
somebody else's code in it is not. What it opens cannot be told from here: its root is empty, and its capabilities keep
devices from being made.
The os module of Python 3.11 to 3.13 on glibc is what the lists were made from, with strace; fstat is musl's and that of
glibc since 2.39, newfstatat that of those before. tests/runtime/share runs a server under them.
"""

from __future__ import annotations

import fcntl
import stat
from functools import lru_cache

from runtime import pythoncalls
from runtime.boot.abi import ioctl
from runtime.pythoncalls import argument

_ALLOWED = (
    *pythoncalls.ALLOWED,
    # Descriptors: the rings' event channels, standard error, files and what they are of.
    *("read", "write", "close", "fstat", "newfstatat", "lseek"),
    # Steps and files; of a file system, its size and free space.
    *("openat", "openat2", "pread64", "pwrite64", "ftruncate", "fsync", "fdatasync", "fstatfs"),
    # Directories and names.
    *("getdents64", "mkdirat", "symlinkat", "readlinkat", "linkat", "renameat", "unlinkat"),
    # Attributes.
    *("fchmodat", "fchownat", "utimensat"),
)
_REFUSED = (*pythoncalls.REFUSED, "sched_getaffinity")  # glibc's allocator, where memory ends; it copes
# What files.Tree.mknod makes. The kernel takes a mode of 16 bits, and 0 for a regular file, which nobody here says.
_MADE = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)
_S_IFMT = 0o170000
# os.dup, os.scandir, locks.py. Not F_SETOWN: a signal of root's may go to any process of the host's.
_FCNTL = (
    *(fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL),
    *(fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK),
)
# Ringing, and letting go of pages. Nothing is mapped and nothing bound any more.
_IOCTLS = (ioctl.IOCTL_EVTCHN_NOTIFY, ioctl.IOCTL_GNTDEV_UNMAP_GRANT_REF)
_CONDITIONAL: tuple[pythoncalls.Rule, ...] = (
    *((("mknodat",), (argument(2, kind, mask=_S_IFMT),)) for kind in _MADE),
    *((("fcntl",), (argument(1, command),)) for command in _FCNTL),
    *((("ioctl",), (argument(1, request),)) for request in _IOCTLS),
)


@lru_cache(maxsize=1)
def share_filter() -> str:
    """The filter as hexadecimal struct sock_filter[], for ShareConfig.seccomp."""
    return pythoncalls.compiled(_ALLOWED, _REFUSED, _CONDITIONAL)
