"""Standard streams of a process: pipes, a terminal, or nothing, with the agent at their other ends."""

import posix

from runtime.init import kernel
from runtime.init.agent.loop import Loop
from runtime.init.agent.pipes import Sink, Source
from runtime.init.failure import os_failure


class Stdio:
    """Both ends. `given` are the process's 0, 1 and 2 (None: /dev/null), to be closed here once it has them.

    stdin:    where to write what it reads; None where that is /dev/null.
    outputs:  descriptor -> where to read what it writes; a terminal has only descriptor 1.
    """

    def __init__(self) -> None:
        self.given: tuple[int | None, int | None, int | None] = (None, None, None)
        self.stdin: Sink | None = None
        self.outputs: dict[int, Source] = {}
        self.terminal_fd = -1

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal, where there is one."""
        if self.terminal_fd >= 0:
            kernel.terminal_size(self.terminal_fd, rows, columns)

    def close_given(self) -> None:
        """Close the process's ends here."""
        for fd in {fd for fd in self.given if fd is not None}:
            posix.close(fd)
        self.given = (None, None, None)

    def close(self) -> None:
        """Close what is left of the agent's ends."""
        self.close_input()
        for source in self.outputs.values():
            source.close()

    def close_input(self) -> None:
        """Nobody reads any more; what has been written can still be read."""
        if self.stdin is not None:
            self.stdin.close()
        if self.terminal_fd >= 0:
            posix.close(self.terminal_fd)
            self.terminal_fd = -1


def pipes(loop: Loop, *, stdin: bool) -> Stdio:
    """A pipe for each of stdout and stderr, and for stdin where one is wanted."""
    made = Stdio()
    fds: list[int] = []
    try:
        for ours in (0, 0, 1) if stdin else (0, 0):
            pair = posix.pipe2(posix.O_CLOEXEC)
            fds += pair
            posix.set_blocking(pair[ours], False)
    except OSError as error:
        for fd in fds:
            posix.close(fd)
        raise os_failure("workload", "making pipes", error) from None
    made.outputs = {1: Source(loop, fds[0]), 2: Source(loop, fds[2])}
    if stdin:
        made.stdin = Sink(loop, fds[5])
    made.given = (fds[4] if stdin else None, fds[1], fds[3])
    return made


def terminal(loop: Loop, master_fd: int) -> Stdio:
    """Around the master of a process's terminal, which is duplicated."""
    made = Stdio()
    try:
        made.terminal_fd = posix.dup(master_fd)
        posix.set_blocking(made.terminal_fd, False)
        made.stdin = Sink(loop, posix.dup(master_fd), terminal=True)
        made.outputs = {1: Source(loop, posix.dup(master_fd), terminal=True)}
    except OSError:
        made.close()
        raise
    return made


def size_of(value: object) -> tuple[int, int]:
    """Rows and columns of [rows, columns]; 24 and 80 for anything else."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, int) for item in value):
        return min(max(int(value[0]), 0), 65535), min(max(int(value[1]), 0), 65535)
    return 24, 80
