"""The device the host is reached by: the zone's second PV console."""

import errno
import posix

from runtime.init import devices, kernel

DEFAULT = "/dev/hvc1"
# The kernel has listed its devices from xenstore before init runs.
_ANNOUNCED = "/sys/bus/xen/devices/console-1"
_NOT_YET = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO, errno.EBUSY)


def path_of(extra: object) -> str:
    """extra.agent_device of the launch data, or the usual device."""
    given = extra.get("agent_device") if isinstance(extra, dict) else None
    return given if isinstance(given, str) and given else DEFAULT


def announced() -> bool:
    """Did the host give this zone an agent channel? Its driver may not have connected yet."""
    return devices.exists(_ANNOUNCED)


def open_link(path: str) -> int | None:
    """The device, in raw mode and non-blocking; None while it is not there. Raises OSError for anything else."""
    try:
        fd = posix.open(path, posix.O_RDWR | posix.O_NOCTTY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError as error:
        # The nodes of all consoles are there from the start; ENODEV says that nothing is behind this one yet.
        if error.errno in _NOT_YET:
            return None
        raise
    try:
        kernel.raw_terminal(fd)
    except OSError:
        posix.close(fd)
        return None
    return fd
