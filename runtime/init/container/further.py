"""Fork a further process of a container that runs, beside its first."""

import posix

from runtime.init import abi as zone_abi
from runtime.init.container import abi, calls, terminal
from runtime.init.container.launched import Launch
from runtime.init.container.launcher import Child, Stdio, Step, call, launch, set_oom_score
from runtime.init.container.stage import become_inside

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
        # A pid namespace holds for children only. One that could end before its pid is told would be nobody's.
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        pid = call("namespace", "forking in the container", calls.clone, abi.CLONE_PARENT)
        if pid:
            child.say(b"P", str(pid))
            posix.write(writer, b"g")
            posix._exit(0)
        posix.close(writer)
        if posix.read(reader, 1) != b"g":
            posix._exit(127)
        posix.close(reader)
        become_inside(maps)
        if process["tty"]:
            root = posix.open("/", posix.O_RDONLY | posix.O_DIRECTORY)
            pair = call("terminal", "opening the terminal", terminal.open_pair, root, process["size"])
            child.give_terminal(pair)
        child.finish(process, steps)

    root = call("root", "opening the container's root", posix.open, f"/proc/{pid}/root", _ROOT)
    try:
        return launch(run, 0, cgroup_fd, process, stdio, staged=True, extra=[pidfd, root])
    finally:
        posix.close(root)
