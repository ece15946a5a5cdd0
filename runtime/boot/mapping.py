"""Memory that a device of the kernel maps into this process, and is taken away again at a known moment.

Python's mmap objects are not used: an exported buffer blocks their close, and page tables must be unmapped, truly and
at a known moment, before Xen lets them be pinned.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.boot.errors import HypervisorFault, NotOnXen

_PROT_READ_WRITE, _MAP_SHARED = 3, 1
_MAP_FAILED = ctypes.c_void_p(-1).value
_SHORT = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)  # of memory or descriptors, of which others may give some back
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
]  # fmt: skip
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


@contextmanager
def mapped(name: str, descriptor: int, length: int, offset: int = 0) -> Iterator[int]:
    """The address at which a device is mapped; unmapped at exit. name: for messages. Raises HypervisorFault."""
    address = _libc.mmap(None, length, _PROT_READ_WRITE, _MAP_SHARED, descriptor, offset)
    if address == _MAP_FAILED:
        raise fault(name, ctypes.get_errno())
    try:
        yield address
    finally:
        if _libc.munmap(address, length):
            raise fault(f"unmap {name}", ctypes.get_errno())


@contextmanager
def viewed(address: int, length: int) -> Iterator[memoryview]:
    """Mapped memory as bytes; no slice of it may be left at exit."""
    view = memoryview((ctypes.c_ubyte * length).from_address(address)).cast("B")
    try:
        yield view
    finally:
        view.release()


def open_device(path: str, flags: int = 0) -> int:
    """A descriptor of one of Xen's devices. Raises NotOnXen."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags)
    except PermissionError as error:
        raise NotOnXen(path, got="no permission", hint="booting zones needs root") from error
    except OSError as error:
        hint = "is this a control domain, with the modules xen-privcmd, xen-evtchn and xen-gntdev loaded?"
        short = error.errno in _SHORT
        got = os.strerror(error.errno or 0)
        raise NotOnXen(path, got=got, hint="" if short else hint, temporary=short) from error


def fault(name: str, number: int) -> HypervisorFault:
    """What a call of the kernel's was refused with."""
    temporary = number in (errno.EAGAIN, errno.EINTR, errno.EBUSY, *_SHORT)
    made = HypervisorFault(
        name, got=f"{os.strerror(number)} ({errno.errorcode.get(number, number)})", temporary=temporary
    )
    made.errno = number
    return made
