"""A container's cgroup (version 2): made, entered at fork, frozen, killed, limited, read."""

import errno
import posix
import time

from runtime.init import abi, mounts
from runtime.init.agent.errors import Refused
from runtime.init.failure import why
from runtime.init.launch import read_file
from runtime.init.report import say

CONTROLLERS = ("cpu", "io", "memory", "pids")
_LIMITS = ("cpu.", "io.", "memory.", "pids.", "cpuset.")
_KILL_ROUNDS = 100
_GONE_S, _GONE_STEP_S = 2.0, 0.002


def path_of(container: str) -> str:
    """Its directory."""
    return f"{mounts.CGROUPS}/{container}"


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


def make_anew(container: str) -> int:
    """Make it, in the place of an earlier run's; the descriptor of its directory. Raises OSError.

    A used one will not do: since 6.14, and in the stable kernels that took "cgroup: fix race between fork and
    cgroup.kill", whatever is forked into a cgroup that was ever killed is killed too (cgroup_css_set_fork).
    """
    remove(container)
    mounts.make_directory(path_of(container))
    return directory(container)


def directory(container: str) -> int:
    """The descriptor of its directory. Raises OSError."""
    return posix.open(path_of(container), posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)


def remove(container: str) -> None:
    """Remove it; what was killed in it may need a moment to be gone. Raises OSError."""
    end = time.monotonic() + _GONE_S
    while True:
        try:
            posix.rmdir(path_of(container))
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= end:
                raise
            time.sleep(_GONE_STEP_S)


def processes(container: str) -> list[int]:
    """The pids in it."""
    return [int(word) for word in read(f"{path_of(container)}/cgroup.procs").split()]


def signal_all(container: str, number: int) -> None:
    """Send a signal to every process in it."""
    if number == abi.SIGKILL:
        kill(container)
        return
    for pid in processes(container):
        try:
            posix.kill(pid, number)
        except ProcessLookupError:
            continue


def kill(container: str) -> None:
    """SIGKILL for all of it, those that are being forked included."""
    try:
        write(f"{path_of(container)}/cgroup.kill", "1")
        return
    except FileNotFoundError:
        pass  # a kernel before 5.14
    for _ in range(_KILL_ROUNDS):
        left = processes(container)
        if not left:
            return
        for pid in left:
            try:
                posix.kill(pid, abi.SIGKILL)
            except ProcessLookupError:
                continue


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


def limit(container: str, limits: dict[str, object]) -> None:
    """Write limits, such as {"memory.max": "64M"}. Raises Refused at the first that is refused."""
    for key, value in limits.items():
        if not key.startswith(_LIMITS) or "/" in key:
            raise Refused("params", f"limits: expected the name of a cgroup2 file, got {key!r:.60}")
        try:
            write(f"{path_of(container)}/{key}", str(value))
        except OSError as error:
            raise Refused("cgroup", f"limit {key}={value!r:.60}: {why(error)}") from None


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
