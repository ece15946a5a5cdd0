"""Pages that other domains grant this one, through the kernel's device for them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.boot.abi import ioctl
from runtime.boot.abi.start_info import PAGE_SIZE
from runtime.boot.mapping import fault, mapped, open_device, viewed
from runtime.boot.model import Domid, GrantRef

_GNTDEV = "/dev/xen/gntdev"


class GrantDevice:
    """An open /dev/xen/gntdev. Raises NotOnXen."""

    def __init__(self) -> None:
        self._descriptor = open_device(_GNTDEV)

    @contextmanager
    def map(self, domid: Domid, references: Sequence[GrantRef]) -> Iterator[memoryview]:
        """Map granted pages one after the other; unmapped at exit, when no slice may be left. Raises HypervisorFault.

        Source:  include/uapi/xen/gntdev.h: the first ioctl takes places in the driver's table, mmap maps them. They are
                 of this open file.
        """
        count = len(references)
        of = f"{references[0]} and {count - 1} more" if count > 1 else str(references[0])
        name = f"grant {of} of domain {domid}"
        pairs = (number for reference in references for number in (domid, reference))
        # The size in the ioctl's number is that of one reference, however many follow.
        request = bytearray(ioctl.GNTDEV_MAP_GRANT_REF_HEAD.pack(count, 0) + struct.pack(f"<{2 * count}I", *pairs))
        self._ioctl(f"map {name}", ioctl.IOCTL_GNTDEV_MAP_GRANT_REF, request)
        index = ioctl.GNTDEV_MAP_GRANT_REF_HEAD.unpack_from(request)[1]
        length = count * PAGE_SIZE
        try:
            with mapped(name, self._descriptor, length, index) as address, viewed(address, length) as view:
                yield view
        finally:
            place = bytearray(ioctl.GNTDEV_UNMAP_GRANT_REF.pack(index, count))
            self._ioctl(f"unmap {name}", ioctl.IOCTL_GNTDEV_UNMAP_GRANT_REF, place)

    def close(self) -> None:
        """Close the device; twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _ioctl(self, name: str, number: int, request: bytearray) -> None:
        try:
            fcntl.ioctl(self._descriptor, number, request, True)
        except OSError as error:
            raise fault(name, error.errno or errno.EIO) from error
