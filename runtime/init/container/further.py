"""Fork a further process of a container that runs, beside its first.

Whoever is in a pid namespace and has CAP_SYS_PTRACE may read and write all that is in it. So what enters is first made
what the container is allowed, in every namespace of it but this one, which holds for children only, and forks then.
"""

import posix

from runtime.init import abi as zone_abi
from runtime.init.container import calls, terminal
from runtime.init.container.launched import Launch
from runtime.init.container.launcher import Child, Stdio, Step, call, launch, set_oom_score
from runtime.init.container.stage import become_inside

_READER, _WRITER = 4, 5  # behind the socket
_ROOT = zone_abi.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


def enter(
    pid: int,
    pidfd: int,
    flags: int,
    maps: object,
    process: dict[str, object],
    steps: list[Step],
    stdio: Stdio,
    cgroup_fd: int,
) -> Launch:
    """Begin a further process in the namespaces `flags` of a container's first, `pid`. Raises ContainerFailure."""

    def run(child: Child) -> None:
        set_oom_score(process)
        call("namespace", "entering the container", calls.setns, child.extra[0], flags)
        # setns leads to the namespace's own root, which is not the container's where the zone itself runs in a chroot.
        call("root", "entering the container's root", posix.fchdir, child.extra[1])
        call("root", "entering the container's root", posix.chroot, ".")
        become_inside(maps)
        if process["tty"]:
            root = posix.open("/", posix.O_RDONLY | posix.O_DIRECTORY)
            pair = call("terminal", "opening the terminal", terminal.open_pair, root, process["size"])
            child.give_terminal(pair)
        # Made here, as its limit of descriptors may be reached by then.
        for fd, place in zip(posix.pipe2(posix.O_CLOEXEC), (_READER, _WRITER), strict=True):
            posix.dup2(fd, place, inheritable=False)
        child.finish(process, steps, lambda: _go_apart(child), _WRITER + 1)

    root = call("root", "opening the container's root", posix.open, f"/proc/{pid}/root", _ROOT)
    try:
        return launch(run, 0, cgroup_fd, process, stdio, staged=True, extra=[pidfd, root])
    finally:
        posix.close(root)


def _go_apart(child: Child) -> None:
    """Go on in a process of the container's pid namespace; one that could end before its pid is told is nobody's."""
    pid = calls.sibling()
    if pid:
        child.say(b"P", str(pid))
        posix.write(_WRITER, b"g")
        posix._exit(0)
    posix.close(_WRITER)
    if posix.read(_READER, 1) != b"g":
        posix._exit(127)
    posix.close(_READER)
