"""One step from a directory to what has a name in it, which crosses no mount point: openat2(2).

It must be asked of the kernel: a bind mount of the same file system has the st_dev of what it covers.
Source:  include/uapi/linux/openat2.h; the system call's number is the same on all architectures.
"""

from __future__ import annotations

import ctypes
import os
import struct

_SYS_OPENAT2 = 437
_RESOLVE_NO_XDEV, _RESOLVE_NO_SYMLINKS = 0x01, 0x04
_HOW = struct.Struct("QQQ")  # struct open_how: flags, mode, resolve
_STEP = _HOW.pack(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def step(dir_fd: int, name: bytes) -> int:
    """An O_PATH descriptor of what has the name, a symlink itself if it is one.

    name:    ".." or one without a slash.
    Raises:  OSError; EXDEV where something is mounted there, ENOTDIR where it starts from no directory.
    """
    fd: int = _syscall(_SYS_OPENAT2, dir_fd, name, _STEP, _HOW.size)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd
