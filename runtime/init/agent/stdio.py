"""Standard streams of a process: pipes, a terminal, or nothing, with the agent at their other ends."""

import posix

from runtime.init import abi, kernel, mounts
from runtime.init.agent.loop import Loop
from runtime.init.agent.pipes import Sink, Source
from runtime.init.failure import os_failure

PIPE_BYTES = 1 << 16


class Stdio:
    """Both ends. `given` are the process's 0 (-1: /dev/null), 1 and 2, to be closed here once it has them.

    stdin:    where to write what it reads; None where that is /dev/null.
    outputs:  descriptor -> where to read what it writes; a terminal has only descriptor 1.
    """

    def __init__(
        self, given: tuple[int, int, int], stdin: Sink | None, outputs: dict[int, Source], terminal_fd: int
    ) -> None:
        self.given, self.stdin, self.outputs, self._terminal_fd = given, stdin, outputs, terminal_fd

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal, where there is one."""
        if self._terminal_fd >= 0:
            kernel.terminal_size(self._terminal_fd, rows, columns)

    def close_given(self) -> None:
        """Close the process's ends here."""
        for fd in set(self.given):
            if fd >= 0:
                posix.close(fd)
        self.given = (-1, -1, -1)

    def close(self) -> None:
        """Close what is left of the agent's ends."""
        self.close_input()
        for source in self.outputs.values():
            source.close()

    def close_input(self) -> None:
        """Nobody reads any more; what has been written can still be read."""
        if self.stdin is not None:
            self.stdin.close()
        if self._terminal_fd >= 0:
            posix.close(self._terminal_fd)
            self._terminal_fd = -1


def pipes(loop: Loop, *, stdin: bool) -> Stdio:
    """A pipe for each of stdout and stderr, and for stdin where one is wanted."""
    made: list[int] = []
    try:
        out, err = _pipe(made, 0), _pipe(made, 0)
        sink, given_in = None, -1
        if stdin:
            given_in, writer = _pipe(made, 1)
            sink = Sink(loop, writer)
    except OSError as error:
        for fd in made:
            posix.close(fd)
        raise os_failure("workload", "making pipes", error) from None
    return Stdio((given_in, out[1], err[1]), sink, {1: Source(loop, out[0]), 2: Source(loop, err[0])}, -1)


def terminal(loop: Loop, root_fd: int | None, size: object) -> Stdio:
    """A pseudo terminal for all three; of the container's own, where its root has any, so that its name is right there.

    size:  [rows, columns]
    """
    master = _master(root_fd)
    try:
        slave = kernel.terminal_peer(master)
    except OSError as error:
        posix.close(master)
        raise os_failure("workload", "opening a terminal", error) from None
    reader, writer = posix.dup(master), posix.dup(master)
    made = Stdio(
        (slave, slave, slave), Sink(loop, writer, terminal=True), {1: Source(loop, reader, terminal=True)}, master
    )
    made.resize(*size_of(size))
    return made


def size_of(value: object) -> tuple[int, int]:
    """Rows and columns of [rows, columns]; 24 and 80 for anything else."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, int) for item in value):
        return min(max(int(value[0]), 0), 65535), min(max(int(value[1]), 0), 65535)
    return 24, 80


def _pipe(made: list[int], ours: int) -> tuple[int, int]:
    """(reader, writer), of which `ours` (0 or 1) does not block."""
    pair = posix.pipe2(posix.O_CLOEXEC)
    made += pair
    posix.set_blocking(pair[ours], False)
    return pair


def _master(root_fd: int | None) -> int:
    flags = posix.O_RDWR | posix.O_NOCTTY | posix.O_NONBLOCK | posix.O_CLOEXEC
    if root_fd is not None:
        try:
            fd = kernel.open_in(root_fd, "dev/pts/ptmx", flags)
        except OSError:
            fd = -1
        # What the container put in its place must not be taken for one.
        if fd >= 0:
            if kernel.filesystem_magic(f"/proc/self/fd/{fd}") == abi.DEVPTS_SUPER_MAGIC:
                return fd
            posix.close(fd)
    try:
        return posix.open("/dev/pts/ptmx", flags)
    except FileNotFoundError:
        mounts.terminals()
        return posix.open("/dev/pts/ptmx", flags)
