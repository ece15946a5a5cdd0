"""Pseudo terminals of a container's own devpts."""

import posix

from runtime.init import abi as zone_abi
from runtime.init import kernel
from runtime.init.container import abi, calls
from runtime.init.failure import ContainerFailure

_PTMX = posix.makedev(5, 2)


def open_pair(root_fd: int, size: list[int] | None) -> tuple[int, int]:
    """(master, slave) of a new terminal, opened below the container's root. Raises OSError, ContainerFailure.

    A running container can have put anything at this path, so what was opened is looked at; the slave is opened from
    the master.
    """
    resolve = zone_abi.RESOLVE_IN_ROOT | zone_abi.RESOLVE_NO_SYMLINKS
    flags = posix.O_RDWR | posix.O_NOCTTY | posix.O_NONBLOCK
    master = kernel.open_in(root_fd, "dev/pts/ptmx", flags, resolve=resolve)
    if posix.fstat(master).st_rdev != _PTMX or calls.file_system(master) != abi.DEVPTS_SUPER_MAGIC:
        raise ContainerFailure("terminal", "/dev/pts/ptmx of the container: expected that of devpts, got another file")
    posix.set_blocking(master, True)
    calls.unlock_terminal(master)
    if size is not None:
        calls.resize_terminal(master, size[0], size[1])
    return master, calls.terminal_peer(master)
