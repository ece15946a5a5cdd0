"""A process on its way to its command, as whoever forked it sees it: what it says, and what becomes of it.

What a child has to say comes over a socket that every exec closes: `F reason sentence` a failure, `P pid` the process
a stage has made, `T` with a descriptor a terminal's master, `R` ready to execute. The end without a failure and with an
`R` means that the command runs.
"""

import _socket
import posix
import select
import time
from _struct import calcsize, unpack

from runtime.init.abi import SIGKILL
from runtime.init.failure import ContainerFailure

START_TIMEOUT_S = 60.0
MAX_MESSAGE_BYTES = 4096


class Started:
    """A process that runs its command.

    pid, pidfd:  the process, a child of the caller; whoever reaps it tells how it ended.
    terminal:    master of its terminal, or -1.
    status:      where a reaper between tells how the command ended, or -1.
    """

    def __init__(self, pid: int, terminal: int, status: int) -> None:
        self.pidfd = posix.pidfd_open(pid)
        self.pid, self.terminal, self.status = pid, terminal, status

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.pidfd, self.terminal, self.status):
            if fd >= 0:
                posix.close(fd)
        self.pidfd = self.terminal = self.status = -1


class Launch:
    """One that was forked. Either wait() for it; or hear() whenever `fd` can be read, reap what ends, and close().

    The process has the limits of its container from the first on, and may be as slow as these make it, until `end_s`.
    """

    def __init__(self, ours: _socket.socket, pid: int, status_fd: int, *, staged: bool) -> None:
        ours.setblocking(False)
        self.fd = ours.fileno()
        self._socket, self._status = ours, status_fd
        self._stage, self._pid = (pid, 0) if staged else (0, pid)
        self._terminal, self._ready, self._closed = -1, False, False
        self._failure: ContainerFailure | None = None
        self.end_s = time.monotonic() + START_TIMEOUT_S

    def hear(self, ended: int = 0) -> Started | None:
        """What it has come to: the process once its command runs, None as long as that is open.

        ended:   a child that is about to be reaped: what it said is all it will.
        Raises:  ContainerFailure of the step that failed, OSError; what was forked is killed then.
        """
        try:
            self._listen()
            if not self._closed and (not ended or ended != self._pid):
                if time.monotonic() < self.end_s:
                    return None
                self._failure = ContainerFailure(
                    "process", f"expected the command to run within {START_TIMEOUT_S:.0f} s"
                )
            if self._failure is None and (not self._ready or not self._pid):
                self._failure = ContainerFailure("process", "the process ended before its command was executed")
            if self._failure is not None:
                raise self._failure
            started = Started(self._pid, self._terminal, self._status)
        except BaseException:
            self.kill()
            raise
        finally:
            if ended == self._stage:
                self._stage = 0  # from now on, its number may be another's
        self._terminal = self._status = -1
        return started

    def wait(self) -> Started:
        """Hear until it is over, and reap what is not the process. Raises as hear()."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        started = None
        try:
            while (started := self.hear()) is None:
                poll.poll(max(0, int((self.end_s - time.monotonic()) * 1000)) + 1)
            return started
        except BaseException:
            self.kill()
            raise
        finally:
            self.close()
            for pid in (self._stage, 0 if started else self._pid):
                if pid:
                    posix.waitpid(pid, 0)

    def kill(self) -> None:
        """End what was forked; whoever reaps reaps it."""
        _kill(self._stage)
        try:
            # Behind the stage's end: a process that it has let go on is one that it has told of, if not heard yet.
            self._listen()
        finally:
            _kill(self._pid)

    def close(self) -> None:
        """Let go of what no process has been given."""
        self._socket.close()
        for fd in (self._terminal, self._status):
            if fd >= 0:
                posix.close(fd)
        self._terminal = self._status = -1

    def _listen(self) -> None:
        space = _socket.CMSG_SPACE(calcsize("i")) + _socket.CMSG_SPACE(calcsize("3i"))
        while not self._closed:
            try:
                data, added, _, _ = self._socket.recvmsg(MAX_MESSAGE_BYTES, space, _socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            kind, text = data[:1], data[1:].decode("utf-8", "replace")
            sender, fds = _who_and_what(added)
            if not data:
                self._closed = True
            elif kind == b"P":
                # By the stage alone: what it lets go on may be in a debugger's hands, and this number will be killed.
                self._pid = self._pid or (int(text) if sender == self._stage else 0)
            elif kind == b"T" and fds and self._terminal < 0:
                self._terminal = fds.pop(0)
            elif kind == b"T" and not fds:  # the kernel passes none on to a process that may have no more
                self._failure = self._failure or ContainerFailure("terminal", "its master: too many open files")
            elif kind == b"R":
                self._ready = True
            elif kind == b"F" and self._failure is None:
                # Not the end yet: the pid of a process that failed at once may come behind its failure.
                reason, _, sentence = text.partition(" ")
                self._failure = ContainerFailure(reason, sentence)
            for fd in fds:
                posix.close(fd)


def _who_and_what(added: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    """Whose message it is, by the kernel's word, and the descriptors it brings."""
    sender, fds = 0, []
    for _, kind, content in added:
        count = len(content) // calcsize("i")
        numbers = unpack(f"{count}i", content[: count * calcsize("i")])
        if kind == _socket.SCM_RIGHTS:
            fds = list(numbers)
        elif kind == _socket.SCM_CREDENTIALS:
            sender = numbers[0]
    return sender, fds


def _kill(pid: int) -> None:
    if pid:
        try:
            posix.kill(pid, SIGKILL)
        except ProcessLookupError:
            return
