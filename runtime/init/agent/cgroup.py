"""What the agent asks of the cgroup tree itself; containers' cgroups are made by runtime.init.container.cgroup."""

import posix

from runtime.init import mounts
from runtime.init.failure import why
from runtime.init.launch import read_file
from runtime.init.report import say

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


def path_of(container: str) -> str:
    """The directory of a container's cgroup."""
    return f"{mounts.CGROUPS}/containers/{container}"


def enable_controllers() -> None:
    """Let containers be measured and limited, as far as the kernel can.

    In one write: each waits for an RCU grace period (cgroup_attach_lock).
    """
    try:
        there = read(f"{mounts.CGROUPS}/cgroup.controllers").split()
        if wanted := [f"+{name}" for name in CONTROLLERS if name in there]:
            write(f"{mounts.CGROUPS}/cgroup.subtree_control", " ".join(wanted))
    except OSError as error:
        say(f"agent: containers are neither measured nor limited: {why(error)}")


def processes(container: str) -> list[int]:
    """The pids in a container."""
    return [int(word) for word in read(f"{path_of(container)}/cgroup.procs").split()]


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
