"""What the agent asks of the cgroup tree itself; containers' cgroups are made by runtime.init.container.cgroup."""

import errno
import posix

from runtime.init import devices, mounts
from runtime.init.failure import os_failure, why
from runtime.init.launch import read_file
from runtime.init.report import say

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


def path_of(container: str) -> str:
    """The directory of a container's cgroup."""
    return f"{mounts.CGROUPS}/containers/{container}"


def enable_controllers() -> None:
    """Let containers be measured and limited. Raises BootFailure "cgroup".

    A controller that the kernel does not have is left out: what needs it says so. The zone's tree begins at the root of
    all; one of a cgroup namespace, which alone has a cgroup.type, may have processes of ours and refuse (EBUSY).
    In one write: each waits for an RCU grace period (cgroup_attach_lock).
    """
    wanted: list[str] = []
    try:
        there = read(f"{mounts.CGROUPS}/cgroup.controllers").split()
        if wanted := [f"+{name}" for name in CONTROLLERS if name in there]:
            write(f"{mounts.CGROUPS}/cgroup.subtree_control", " ".join(wanted))
    except OSError as error:
        if error.errno == errno.EBUSY and devices.exists(f"{mounts.CGROUPS}/cgroup.type"):
            say(f"containers are neither measured nor limited: {why(error)}")
            return
        raise os_failure("cgroup", f"enabling the controllers {' '.join(wanted)}".rstrip(), error) from None


def spare() -> None:
    """The OOM killer takes neither the caller nor what it forks, unless that says otherwise.

    Raises:  BootFailure "agent".
    EACCES means that CAP_SYS_RESOURCE is missing (fs/proc/base.c, __set_oom_adj), as it never is to pid 1 of a kernel
    but may be where a box is run in another container: that is said.
    """
    try:
        write("/proc/self/oom_score_adj", "-1000")
    except OSError as error:
        if error.errno == errno.EACCES:
            say(f"the OOM killer may take init and agent: {why(error)}")
            return
        raise os_failure("agent", "keeping the OOM killer from init and agent", error) from None


def processes(container: str) -> list[int]:
    """The pids in a container."""
    from runtime.init.container import subgroups

    directory = posix.open(path_of(container), posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        return subgroups.pids(directory)
    finally:
        posix.close(directory)


def freeze(container: str, *, frozen: bool) -> None:
    """Ask for it; is_frozen tells when it is so."""
    write(f"{path_of(container)}/cgroup.freeze", "1" if frozen else "0")


def is_frozen(container: str) -> bool:
    """Do all its processes stand still?"""
    return fields(f"{path_of(container)}/cgroup.events").get("frozen") == 1


def oom_kills(container: str) -> int:
    """How many of its processes the OOM killer has taken; 0 too where the kernel does not count."""
    try:
        return fields(f"{path_of(container)}/memory.events").get("oom_kill", 0)
    except OSError:
        return 0


def read(path: str) -> str:
    """The text of a small file."""
    return read_file(path, 1 << 20).decode("ascii", "replace")


def fields(path: str) -> dict[str, int]:
    """A file of `name number` lines."""
    found = {}
    for line in read(path).splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            found[name] = int(number)
    return found


def write(path: str, text: str) -> None:
    """Write a small file in one piece."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, text.encode())
    finally:
        posix.close(fd)
