"""How init fails: one word for programs, one sentence for people."""

import posix


class BootFailure(Exception):
    """A step that cannot go on; the boot ends here.

    reason:    one word: launch, mount, modules, root, addons, network, files, user, cwd, command-127 (missing),
               command-126 (cannot be executed), workload, internal.
    sentence:  what was expected and what came.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(reason, sentence)
        self.reason, self.sentence = reason, sentence


def os_failure(reason: str, what: str, error: OSError) -> BootFailure:
    """The failure for a system call that was refused; `what` reads as "mounting /proc"."""
    return BootFailure(reason, f"{what}: {why(error)}")


def why(error: OSError) -> str:
    """The kernel's reason in words."""
    return posix.strerror(error.errno) if error.errno else str(error)
