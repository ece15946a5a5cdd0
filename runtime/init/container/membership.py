"""The cgroup of a process that another program has put there."""

import posix

from runtime.init.container import abi, calls
from runtime.init.container.cgroup import DIRECTORY, read
from runtime.init.failure import ContainerFailure, why
from runtime.init.launch import read_file


def of_process(pid: int, root: str) -> int:
    """A descriptor of the cgroup that a process is in; -1 where that is the caller's own, too.

    Raises:  ContainerFailure "cgroup": whoever is to join the process must not run outside of its limits.
    """
    try:
        ours, theirs = (_path_of(f"/proc/{each}/cgroup") for each in ("self", pid))
        if ours == theirs:
            return -1
        directory = posix.open(f"{root}{theirs}", DIRECTORY)
        try:
            there = calls.file_system(directory) == abi.CGROUP2_SUPER_MAGIC and read(directory, "cgroup.procs")
            if not there or str(pid) not in there.split():
                raise ContainerFailure("cgroup", f"cgroup {theirs} of process {pid}: expected it below {root}")
        except BaseException:
            posix.close(directory)
            raise
        return directory
    except OSError as error:
        raise ContainerFailure("cgroup", f"cgroup of process {pid} below {root}: {why(error)}") from None


def _path_of(file: str) -> str:
    """The cgroup v2 of a process, as the root of the caller's cgroup namespace leads there; "" without any."""
    lines = read_file(file, 1 << 16).decode("utf-8", "surrogateescape").splitlines()
    return "".join([line[3:] for line in lines if line.startswith("0::")])
