"""Steps that go no further than they should, which only the kernel can see to: openat2(2).

Between a look at a path and its opening, somebody may have put a symlink there; and a bind mount of the same file
system has the st_dev of what it covers.
Source:  include/uapi/linux/openat2.h; the system call's number is the same on all architectures.
"""

from __future__ import annotations

import ctypes
import os
import struct

_SYS_OPENAT2 = 437
_RESOLVE_NO_XDEV, _RESOLVE_NO_SYMLINKS = 0x01, 0x04
_AT_FDCWD = -100  # linux/fcntl.h
_HOW = struct.Struct("QQQ")  # struct open_how: flags, mode, resolve
_STEP = _HOW.pack(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS)
_DIRECTORY = _HOW.pack(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def step(dir_fd: int, name: bytes) -> int:
    """An O_PATH descriptor of what has a name in a directory, a symlink itself if it is one; crosses no mount point.

    name:    ".." or one without a slash.
    Raises:  OSError; EXDEV where something is mounted there, ENOTDIR where it starts from no directory.
    """
    return _openat2(dir_fd, name, _STEP)


def directory(path: bytes) -> int:
    """An O_PATH descriptor of a directory. Raises OSError; ELOOP where any part of the path is a symlink."""
    return _openat2(_AT_FDCWD, path, _DIRECTORY)


def _openat2(dir_fd: int, name: bytes, how: bytes) -> int:
    fd: int = _syscall(_SYS_OPENAT2, dir_fd, name, how, _HOW.size)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd
