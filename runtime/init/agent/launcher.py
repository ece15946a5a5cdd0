"""Start processes: in a new container's root, in a running container, in the zone itself."""

import posix

from runtime.init import abi, kernel, mounts, process

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    Stdio3 = tuple[int, int, int]


def start(container: str, spec: dict[str, object], stdio: "Stdio3", cgroup_fd: int) -> int:
    """The first process of a container; returns its pid once it runs. Raises BootFailure."""
    root = mounts.root_of(container)

    def enter() -> None:
        kernel.unshare(abi.CLONE_NEWNS)
        kernel.mount("none", "/", None, abi.MS_REC | abi.MS_PRIVATE, None)
        posix.chdir(root)
        # Old and new root in one place: the old one lies on top and is taken off again.
        kernel.pivot_root(".", ".")
        kernel.unmount(".", abi.MNT_DETACH)
        posix.chdir("/")

    return process.start(spec, cgroup_fd, stdio, enter)


def enter(pid: int, spec: dict[str, object], stdio: "Stdio3", cgroup_fd: int) -> int:
    """A further process beside the process `pid` of a container. Raises BootFailure, OSError."""
    namespace = posix.open(f"/proc/{pid}/ns/mnt", posix.O_RDONLY | posix.O_CLOEXEC)
    root = posix.open(f"/proc/{pid}/root", abi.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)

    def enter() -> None:
        kernel.enter_namespace(namespace, abi.CLONE_NEWNS)
        # setns leads to the namespace's first mount, which need not be where the container's root is.
        posix.fchdir(root)
        posix.chroot(".")

    try:
        return process.start(spec, cgroup_fd, stdio, enter)
    finally:
        posix.close(namespace)
        posix.close(root)


def start_in_zone(spec: dict[str, object], stdio: "Stdio3") -> int:
    """A process in the zone's own root, where there is little: what the addons bring. Raises BootFailure."""
    return process.start(spec, -1, stdio, None)


def open_root(container: str, pid: int) -> int:
    """A descriptor of a container's root as its processes see it, all their mounts included. Raises OSError."""
    path = f"/proc/{pid}/root" if pid else mounts.root_of(container)
    return posix.open(path, abi.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
