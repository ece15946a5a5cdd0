"""Write files of /proc, and what is set through them or beside them for a container's namespaces."""

import _socket
import posix

from runtime.init.container import abi, calls


def write(proc: int, path: str, data: bytes) -> None:
    """Write a file below the descriptor of /proc, in one write. Raises OSError.

    What is written must be a file of procfs, wherever the path leads (CVE-2019-16884, CVE-2025-52881).
    """
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=proc)
    try:
        if calls.file_system(fd) != abi.PROC_SUPER_MAGIC:
            raise OSError(0, "expected a file of procfs, got another")
        posix.write(fd, data)
    finally:
        posix.close(fd)


# step -> (reason, what is being done), for its failure
REASONS = {
    "cgroup_namespace": ("namespace", "making a cgroup namespace"),
    "hostname": ("namespace", "setting the hostname {0!r}"),
    "domainname": ("namespace", "setting the domain name {0!r}"),
    "sysctl": ("sysctl", "setting {0} to {1}"),
}


class Identity:
    """Does the steps that name a container and set its kernel parameters; proc is a descriptor of the zone's /proc."""

    def __init__(self, proc: int) -> None:
        self._proc = proc

    def do(self, step: tuple[object, ...]) -> None:
        """One step. Raises OSError."""
        getattr(self, f"_{step[0]}")(*step[1:])

    def _cgroup_namespace(self) -> None:
        calls.unshare(abi.CLONE_NEWCGROUP)

    def _hostname(self, name: str) -> None:
        _socket.sethostname(name)

    def _domainname(self, name: str) -> None:
        calls.set_domain_name(name)

    def _sysctl(self, path: str, value: str) -> None:
        write(self._proc, f"sys/{path}", value.encode())
