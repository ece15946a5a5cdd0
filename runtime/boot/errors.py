"""The ways a boot fails."""

from __future__ import annotations

import errno

from runtime.errors import RuntimeFault


class NotOnXen(RuntimeFault):
    """This machine is no control domain, or its Xen speaks an interface we do not."""


class BadKernel(RuntimeFault):
    """A kernel that cannot be started as a PV domain."""


class BadSpec(RuntimeFault):
    """A domain that cannot be built as it was asked for."""


class HypervisorFault(RuntimeFault):
    """A hypercall or an ioctl failed; `errno` says how.

    Effects: `errno` is not one of the sentence's fields, so a pickled copy carries 0.
    """

    errno: int = 0

    @property
    def is_invalid(self) -> bool:
        """EINVAL: Xen knows no such thing."""
        return self.errno == errno.EINVAL


class OutOfMemory(RuntimeFault):
    """Xen has not the memory a domain needs."""


class XenstoreFault(RuntimeFault):
    """xenstored refused a request, or is gone."""


class DomainGone(RuntimeFault):
    """A domain that something was asked of has ended."""


class TeardownFault(RuntimeFault):
    """Something of a zone could not be removed."""


class DeviceFault(RuntimeFault):
    """A back end did not come up."""
