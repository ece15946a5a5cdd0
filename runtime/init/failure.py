"""How init and the container runtime fail: one word for programs, one sentence for people."""

import posix

_OPTIONS = {
    "squashfs": "SQUASHFS",
    "mqueue": "POSIX_MQUEUE",
    "9p": "9P_FS and CONFIG_NET_9P_XEN",
    "cgroup2": "CGROUPS",
    "tmpfs": "TMPFS",
    "sysfs": "SYSFS",
    "devtmpfs": "DEVTMPFS",
    "devpts": "UNIX98_PTYS",
}


class Failure(Exception):
    """A step that cannot go on.

    reason:    one word, see the subclasses.
    sentence:  what was expected and what came.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(reason, sentence)
        self.reason, self.sentence = reason, sentence


class BootFailure(Failure):
    """The boot ends here.

    reason:  launch, mount, modules, sysctl, root, addons, volume, network, files, cgroup, agent, internal; of a process
             in the zone itself: user, cwd, command-127 (missing), command-126 (cannot be executed), workload.
    """


class ContainerFailure(Failure):
    """The container, or the process in it, does not come to be, or cannot do what was asked.

    reason:  spec, state, namespace, root, files, mount, device, cgroup, user, rlimit, sysctl, capabilities, seccomp,
             terminal, cwd, command-127 (missing), command-126 (cannot be executed), process (the rest).
    """


def os_failure(reason: str, what: str, error: OSError) -> BootFailure:
    """The boot's failure for a system call that was refused; `what` reads as "mounting /proc"."""
    return BootFailure(reason, f"{what}: {why(error)}")


def why(error: OSError) -> str:
    """The kernel's reason in words."""
    return posix.strerror(error.errno) if error.errno else str(error)


def lacking(kind: str) -> str:
    """What a kernel lacks that does not know a file system, and what brings it: names of fs/*/Kconfig."""
    option = _OPTIONS.get(kind) or f"{kind.upper()}_FS"
    return f"the kernel has no {kind}, which is CONFIG_{option}: as a module, it is loaded by kernel_options.modules"
