"""The ways the lab fails."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class LabUnfit(RuntimeFault):
    """This machine, now, cannot run the lab: something is missing or too small. Said before any work."""


class LabDown(RuntimeFault):
    """The lab is not up."""


class LabFailed(RuntimeFault):
    """QEMU or the dom0 in it ended or does not answer."""


class LabOutdated(RuntimeFault):
    """The lab that runs was started from other code or settings, and zones are in it."""


class QmpError(RuntimeFault):
    """QEMU refused a command."""


class SnapshotDamaged(RuntimeFault):
    """A snapshot that is not what was saved."""


class PortTaken(RuntimeFault):
    """A port to forward is in use on this machine."""


class StateDiskInUse(RuntimeFault):
    """Another lab has the state disk."""


class NoSlot(RuntimeFault):
    """No further disk can be plugged in."""
