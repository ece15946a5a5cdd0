"""The kernel's doors to Xen: hypercalls, memory of other domains, event channels. The only module that uses ctypes.

Python's mmap objects are not used: an exported buffer blocks their close, and page tables must be unmapped, truly and
at a known moment, before Xen lets them be pinned.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import threading
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from runtime.boot.abi import hypercall as abi
from runtime.boot.abi import ioctl
from runtime.boot.abi.start_info import PAGE_SIZE
from runtime.boot.errors import HypervisorFault, NotOnXen
from runtime.boot.model import Domid, EvtchnPort, GrantRef

_PRIVCMD, _HYPERCALL, _EVTCHN = "/dev/xen/privcmd", "/dev/xen/hypercall", "/dev/xen/evtchn"
_GNTDEV = "/dev/xen/gntdev"
_PROT_READ_WRITE, _MAP_SHARED = 3, 1
_MAP_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True)
class Buffer:
    """Memory a hypercall may read and write: resident, and locked while it is open."""

    address: int
    view: memoryview


class EventChannel(Protocol):
    """One end of an event channel."""

    def fileno(self) -> int:
        """Readable when an event waits."""

    def acknowledge(self) -> None:
        """Take all events that wait, and let further ones come."""

    def notify(self) -> None:
        """Send an event to the other end."""

    def close(self) -> None:
        """Give the channel back; twice is fine."""


class Door(Protocol):
    """Everything the boot stage asks of kernel and hypervisor. Tests put a recording one in its place."""

    def hypercall(self, name: str, number: int, *arguments: int) -> int:
        """Make a hypercall; `name` is for messages. Raises HypervisorFault with errno."""

    def buffer(self, size_bytes: int) -> AbstractContextManager[Buffer]:
        """Zeroed hypercall memory."""

    def map_foreign(self, domid: Domid, mfns: array[int]) -> AbstractContextManager[memoryview]:
        """Pages of another domain, one after the other; unmapped at exit, when no slice of it may be left."""

    def map_grant_table(self, domid: Domid, nr_frames: int = 1) -> AbstractContextManager[memoryview]:
        """The first pages of another domain's grant table; asked for more than there are, Xen makes them."""

    def map_grant(self, domid: Domid, reference: GrantRef) -> AbstractContextManager[memoryview]:
        """A page another domain has granted us; unmapped at exit, when no slice of it may be left."""

    def bind_event_channel(self, domid: Domid, port: EvtchnPort) -> EventChannel:
        """Join an event channel another domain has left open for us."""

    def close(self) -> None:
        """Close the door; twice is fine."""


class Privcmd:
    """The real door: /dev/xen of a control domain."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
        ]  # fmt: skip
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._gntdev, self._opening = -1, threading.Lock()
        self._privcmd = _open(_PRIVCMD)
        try:
            self._memory = _open(_HYPERCALL)
        except BaseException:
            os.close(self._privcmd)
            raise

    def hypercall(self, name: str, number: int, *arguments: int) -> int:
        """Make a hypercall.

        Raises:  HypervisorFault; its errno is Xen's.
        Source:  include/uapi/xen/privcmd.h: the ioctl returns what the hypercall returned.
        """
        request = ioctl.PRIVCMD_HYPERCALL.pack(number, *arguments, *(0,) * (5 - len(arguments)))
        return self._ioctl(name, ioctl.IOCTL_PRIVCMD_HYPERCALL, request)

    @contextmanager
    def buffer(self, size_bytes: int) -> Iterator[Buffer]:
        """Zeroed hypercall memory. Ordinary memory may be swapped or moved under Xen's feet, which then says EFAULT."""
        length = -(-size_bytes // PAGE_SIZE) * PAGE_SIZE
        with self._mapped("hypercall buffer", self._memory, length) as address, _view(address, size_bytes) as view:
            yield Buffer(address, view)

    @contextmanager
    def map_foreign(self, domid: Domid, mfns: array[int]) -> Iterator[memoryview]:
        """Map pages of another domain. Raises HypervisorFault naming the first page that could not be mapped."""
        length = len(mfns) * PAGE_SIZE
        errors = array("i", bytes(4 * len(mfns)))
        with self._mapped(f"memory of domain {domid}", self._privcmd, length) as address:
            request = ioctl.PRIVCMD_MMAPBATCH_V2.pack(
                len(mfns), domid, address, mfns.buffer_info()[0], errors.buffer_info()[0]
            )
            self._ioctl(f"map {len(mfns)} pages of domain {domid}", ioctl.IOCTL_PRIVCMD_MMAPBATCH_V2, request)
            for mfn, error in zip(mfns, errors, strict=True) if any(errors) else ():
                if error:
                    raise _fault(f"map mfn {mfn:#x} of domain {domid}", -error)
            with _view(address, length) as view:
                yield view

    @contextmanager
    def map_grant_table(self, domid: Domid, nr_frames: int = 1) -> Iterator[memoryview]:
        """Map the first shared frames of another domain's grant table. Source: memory.h, XENMEM_acquire_resource."""
        length = nr_frames * PAGE_SIZE
        with self._mapped(f"grant table of domain {domid}", self._privcmd, length) as address:
            request = ioctl.PRIVCMD_MMAP_RESOURCE.pack(
                domid, abi.RESOURCE_GRANT_TABLE, abi.RESOURCE_GRANT_TABLE_ID_SHARED, 0, nr_frames, address
            )
            self._ioctl(f"map grant table of domain {domid}", ioctl.IOCTL_PRIVCMD_MMAP_RESOURCE, request)
            with _view(address, length) as view:
                yield view

    @contextmanager
    def map_grant(self, domid: Domid, reference: GrantRef) -> Iterator[memoryview]:
        """Map a granted page. The device is opened with the first: a domain can be built without its module.

        Source:  include/uapi/xen/gntdev.h: the first ioctl takes a place in the driver's table, mmap maps it.
        """
        with self._opening:
            if self._gntdev < 0:
                self._gntdev = _open(_GNTDEV)
            device = self._gntdev  # a place is one of this open file's
        name = f"grant {reference} of domain {domid}"
        request = bytearray(ioctl.GNTDEV_MAP_GRANT_REF.pack(1, 0, domid, reference))
        self._ioctl(f"map {name}", ioctl.IOCTL_GNTDEV_MAP_GRANT_REF, request, device)
        index = ioctl.GNTDEV_MAP_GRANT_REF.unpack(request)[1]
        try:
            with self._mapped(name, device, PAGE_SIZE, index) as address, _view(address, PAGE_SIZE) as view:
                yield view
        finally:
            place = bytearray(ioctl.GNTDEV_UNMAP_GRANT_REF.pack(index, 1))
            self._ioctl(f"unmap {name}", ioctl.IOCTL_GNTDEV_UNMAP_GRANT_REF, place, device)

    def bind_event_channel(self, domid: Domid, port: EvtchnPort) -> EventChannel:
        """Join a port that was allocated for us in another domain."""
        return BoundChannel(domid, port)

    def close(self) -> None:
        """Close the devices."""
        for descriptor in (self._privcmd, self._memory, self._gntdev):
            if descriptor >= 0:
                os.close(descriptor)
        self._privcmd = self._memory = self._gntdev = -1

    def _ioctl(self, name: str, number: int, request: bytes | bytearray, descriptor: int | None = None) -> int:
        """An ioctl of privcmd, or another device; it writes what it returns into a bytearray."""
        data = request if isinstance(request, bytearray) else bytearray(request)
        try:
            return int(fcntl.ioctl(self._privcmd if descriptor is None else descriptor, number, data, True))
        except OSError as error:
            raise _fault(name, error.errno or errno.EIO) from error

    @contextmanager
    def _mapped(self, name: str, descriptor: int, length: int, offset: int = 0) -> Iterator[int]:
        address = self._libc.mmap(None, length, _PROT_READ_WRITE, _MAP_SHARED, descriptor, offset)
        if address == _MAP_FAILED:
            raise _fault(name, ctypes.get_errno())
        try:
            yield address
        finally:
            if self._libc.munmap(address, length):
                raise _fault(f"unmap {name}", ctypes.get_errno())


class BoundChannel:
    """A bound event channel with a file descriptor of its own, so that each can be waited for and closed alone."""

    def __init__(self, domid: Domid, port: EvtchnPort) -> None:
        self._descriptor = _open(_EVTCHN, os.O_NONBLOCK)
        try:
            request = bytearray(ioctl.EVTCHN_BIND_INTERDOMAIN.pack(domid, port))
            self._port = fcntl.ioctl(self._descriptor, ioctl.IOCTL_EVTCHN_BIND_INTERDOMAIN, request, True)
        except OSError as error:
            self.close()
            raise _fault(f"bind event channel {port} of domain {domid}", error.errno or errno.EIO) from error

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._descriptor

    def acknowledge(self) -> None:
        """Read the ports that fired and write them back, which unmasks them."""
        try:
            fired = os.read(self._descriptor, 64)
        except BlockingIOError:
            return
        os.write(self._descriptor, fired)

    def notify(self) -> None:
        """Send an event."""
        fcntl.ioctl(self._descriptor, ioctl.IOCTL_EVTCHN_NOTIFY, struct.pack("<I", self._port))

    def close(self) -> None:
        """Closing the descriptor unbinds; the guest's port may be bound again later."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(path: str, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags)
    except PermissionError as error:
        raise NotOnXen(path, got="no permission", hint="booting zones needs root") from error
    except OSError as error:
        hint = "is this a control domain, with the modules xen-privcmd, xen-evtchn and xen-gntdev loaded?"
        raise NotOnXen(path, got=os.strerror(error.errno or 0), hint=hint) from error


@contextmanager
def _view(address: int, length: int) -> Iterator[memoryview]:
    view = memoryview((ctypes.c_ubyte * length).from_address(address)).cast("B")
    try:
        yield view
    finally:
        view.release()


def _fault(name: str, number: int) -> HypervisorFault:
    temporary = number in (errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOMEM)
    fault = HypervisorFault(
        name, got=f"{os.strerror(number)} ({errno.errorcode.get(number, number)})", temporary=temporary
    )
    fault.errno = number
    return fault
