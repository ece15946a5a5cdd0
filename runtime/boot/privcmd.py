"""The kernel's doors to Xen: hypercalls, memory of other domains, event channels."""

from __future__ import annotations

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
from runtime.boot.grants import GrantDevice
from runtime.boot.mapping import fault, mapped, open_device, viewed
from runtime.boot.model import Domid, EvtchnPort, GrantRef

_PRIVCMD, _HYPERCALL, _EVTCHN = "/dev/xen/privcmd", "/dev/xen/hypercall", "/dev/xen/evtchn"


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
        self._grants: GrantDevice | None = None
        self._opening = threading.Lock()
        self._privcmd = open_device(_PRIVCMD)
        try:
            self._memory = open_device(_HYPERCALL)
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
        with mapped("hypercall buffer", self._memory, length) as address, viewed(address, size_bytes) as view:
            yield Buffer(address, view)

    @contextmanager
    def map_foreign(self, domid: Domid, mfns: array[int]) -> Iterator[memoryview]:
        """Map pages of another domain. Raises HypervisorFault naming the first page that could not be mapped."""
        length = len(mfns) * PAGE_SIZE
        errors = array("i", bytes(4 * len(mfns)))
        with mapped(f"memory of domain {domid}", self._privcmd, length) as address:
            request = ioctl.PRIVCMD_MMAPBATCH_V2.pack(
                len(mfns), domid, address, mfns.buffer_info()[0], errors.buffer_info()[0]
            )
            self._ioctl(f"map {len(mfns)} pages of domain {domid}", ioctl.IOCTL_PRIVCMD_MMAPBATCH_V2, request)
            for mfn, error in zip(mfns, errors, strict=True) if any(errors) else ():
                if error:
                    raise fault(f"map mfn {mfn:#x} of domain {domid}", -error)
            with viewed(address, length) as view:
                yield view

    @contextmanager
    def map_grant_table(self, domid: Domid, nr_frames: int = 1) -> Iterator[memoryview]:
        """Map the first shared frames of another domain's grant table. Source: memory.h, XENMEM_acquire_resource."""
        length = nr_frames * PAGE_SIZE
        with mapped(f"grant table of domain {domid}", self._privcmd, length) as address:
            request = ioctl.PRIVCMD_MMAP_RESOURCE.pack(
                domid, abi.RESOURCE_GRANT_TABLE, abi.RESOURCE_GRANT_TABLE_ID_SHARED, 0, nr_frames, address
            )
            self._ioctl(f"map grant table of domain {domid}", ioctl.IOCTL_PRIVCMD_MMAP_RESOURCE, request)
            with viewed(address, length) as view:
                yield view

    @contextmanager
    def map_grant(self, domid: Domid, reference: GrantRef) -> Iterator[memoryview]:
        """Map a granted page. The device is opened with the first: a domain can be built without its module."""
        with self._opening:
            grants = self._grants = self._grants or GrantDevice()
        with grants.map(domid, [reference]) as page:
            yield page

    def bind_event_channel(self, domid: Domid, port: EvtchnPort) -> EventChannel:
        """Join a port that was allocated for us in another domain."""
        return BoundChannel(domid, port)

    def close(self) -> None:
        """Close the devices."""
        for descriptor in (self._privcmd, self._memory):
            if descriptor >= 0:
                os.close(descriptor)
        self._privcmd = self._memory = -1
        if self._grants is not None:
            self._grants.close()

    def _ioctl(self, name: str, number: int, request: bytes) -> int:
        try:
            return int(fcntl.ioctl(self._privcmd, number, bytearray(request), True))
        except OSError as error:
            raise fault(name, error.errno or errno.EIO) from error


class BoundChannel:
    """A bound event channel with a file descriptor of its own, so that each can be waited for and closed alone."""

    def __init__(self, domid: Domid, port: EvtchnPort) -> None:
        self._descriptor = open_device(_EVTCHN, os.O_NONBLOCK)
        try:
            request = bytearray(ioctl.EVTCHN_BIND_INTERDOMAIN.pack(domid, port))
            self._port = fcntl.ioctl(self._descriptor, ioctl.IOCTL_EVTCHN_BIND_INTERDOMAIN, request, True)
        except OSError as error:
            self.close()
            raise fault(f"bind event channel {port} of domain {domid}", error.errno or errno.EIO) from error

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
