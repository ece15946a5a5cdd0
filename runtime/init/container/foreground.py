"""Follow a process to its end from the foreground: signals go on to it, and a terminal of its own is joined to ours."""

import posix
import select
import time
from _struct import pack_into, unpack, unpack_from

from runtime.init import kernel
from runtime.init.abi import SIGNALFD_SIGINFO_BYTES, SIGPIPE, SIGWINCH, SYS_IOCTL
from runtime.init.container import abi, calls
from runtime.init.container.launched import Started

_CHUNK_BYTES, _PIECE_BYTES = 65536, 4096  # the latter is PIPE_BUF: limits.h
_LAST_BYTES = 1 << 20  # more than a terminal holds
_QUIET_MS = 100  # what it was given just before its process ended still comes within this
_WAITS_S = 2.0  # and so long, in all, it is waited for: others may write now and then, for ever


def watch(signals: tuple[int, ...]) -> int:
    """Block these signals and return the descriptor that reads them.

    SIGPIPE, blocked too, is an error of the write; processes are started with nothing blocked.
    """
    kernel.block_signals((*signals, SIGPIPE))
    return kernel.signal_fd(signals)


def follow(started: Started, signal_fd: int, forwarded: tuple[int, ...]) -> int:
    """The wait status of the process."""
    before = _make_raw(0) if started.terminal >= 0 else None
    joint = Joint(started.terminal) if started.terminal >= 0 else None
    try:
        _resize(started.terminal)
        status = None
        while status is None:
            ready = _ready({signal_fd: select.POLLIN} | (joint.wanted() if joint is not None else {}), None)
            if joint is not None:
                joint.turn(ready)
            if signal_fd in ready:
                status = _signals(started, signal_fd, forwarded)
        if joint is not None:
            joint.finish(signal_fd, forwarded)
        return status
    finally:
        if before is not None:
            kernel.call(SYS_IOCTL, 0, abi.TCSETS, before)


class Joint:
    """Our standard streams and the terminal of a process, each copied to the other.

    Neither is waited for, as signals would wait then, too: what is not taken yet is kept, and no more read meanwhile.
    """

    def __init__(self, terminal: int) -> None:
        posix.set_blocking(terminal, False)
        self._terminal, self._output = terminal, _unhurried(1)
        self._typed = self._said = b""
        self._typing = self._saying = True

    def wanted(self) -> dict[int, int]:
        """What to wait for: descriptor -> events."""
        events: dict[int, int] = {}
        if self._typing and not self._typed:
            events[0] = select.POLLIN
        if self._said:
            events[self._output] = select.POLLOUT
        elif self._saying:
            events[self._terminal] = select.POLLIN
        if self._typed and self._saying:
            events[self._terminal] = events.get(self._terminal, 0) | select.POLLOUT
        return events

    def turn(self, ready: dict[int, int]) -> int:
        """Read and write what can be; how much the process had said."""
        if self._output in ready:
            self._said = _write(self._output, self._said)
        events = ready.get(self._terminal, 0)
        if self._typed and events & ~select.POLLIN:
            self._typed = _write(self._terminal, self._typed)
        if 0 in ready:
            data = _read(0)
            self._typed, self._typing = data or b"", data != b""
        if self._said or not events & ~select.POLLOUT:
            return 0
        data = _read(self._terminal)
        self._said, self._saying = data or b"", data != b""
        return len(self._said)

    def finish(self, signal_fd: int, ending: tuple[int, ...]) -> None:
        """The process has ended: what it wrote last, until such a signal. Others on its terminal may write for ever."""
        self._typing, self._typed, left_bytes, left_s = False, b"", _LAST_BYTES, _WAITS_S
        while left_bytes > 0 and left_s > 0 and (wanted := self.wanted()):
            asked_s, quiet = time.monotonic(), not self._said
            ready = _ready({signal_fd: select.POLLIN} | wanted, _QUIET_MS if quiet else None)
            left_s -= (time.monotonic() - asked_s) if quiet else 0.0
            if not ready or (signal_fd in ready and set(ending) & set(_numbers(signal_fd))):
                return
            left_bytes -= self.turn(ready)


def _signals(started: Started, signal_fd: int, forwarded: tuple[int, ...]) -> int | None:
    for number in _numbers(signal_fd):
        if number in forwarded:
            try:
                calls.signal_process(started.pidfd, number)
            except ProcessLookupError:
                continue
        elif number == SIGWINCH:
            _resize(started.terminal)
    pid, status = posix.waitpid(started.pid, posix.WNOHANG)
    return status if pid else None


def _numbers(signal_fd: int) -> list[int]:
    """Of the signals that wait."""
    data = posix.read(signal_fd, SIGNALFD_SIGINFO_BYTES * 16)
    return [unpack_from("=I", data, at)[0] for at in range(0, len(data), SIGNALFD_SIGINFO_BYTES)]


def _ready(wanted: dict[int, int], timeout_ms: int | None) -> dict[int, int]:
    poll = select.poll()
    for fd, events in wanted.items():
        poll.register(fd, events)
    return dict(poll.poll(timeout_ms))


def _unhurried(fd: int) -> int:
    """A pipe or terminal once more, with writes that do not wait: the one we were given is others', too.

    Where that cannot be had it is the same, which takes a small piece without waiting when it is ready.
    """
    try:
        if posix.fstat(fd).st_mode & abi.S_IFMT in (abi.S_IFIFO, abi.S_IFCHR):
            flags = posix.O_WRONLY | posix.O_NONBLOCK | posix.O_NOCTTY | posix.O_CLOEXEC
            return posix.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        pass
    return fd


def _read(fd: int) -> bytes | None:
    """What can be read at once, None for nothing; b"" at the end. A terminal with nobody on its other side says EIO."""
    try:
        return posix.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(fd: int, data: bytes) -> bytes:
    """What is still to be written; nothing where nobody takes it any more."""
    try:
        return data[posix.write(fd, data[:_PIECE_BYTES]) :]
    except BlockingIOError:
        return data
    except OSError:
        return b""


def _resize(terminal: int) -> None:
    """Give a terminal the size of ours, where ours is one."""
    if terminal < 0:
        return
    size = bytearray(8)
    try:
        kernel.call(SYS_IOCTL, 0, abi.TIOCGWINSZ, size)
    except OSError:
        return
    rows, columns = unpack("=HH4x", size)
    if rows and columns:
        calls.resize_terminal(terminal, rows, columns)


def _make_raw(fd: int) -> bytes | None:
    """Let every byte through, as cfmakeraw(3); returns what to set it back to, or None where it is no terminal."""
    state = bytearray(36)  # struct termios, include/uapi/asm-generic/termbits.h
    try:
        kernel.call(SYS_IOCTL, fd, abi.TCGETS, state)
    except OSError:
        return None
    before = bytes(state)
    input_, output, control, local = unpack_from("=IIII", state)
    flags = (
        input_ & ~abi.RAW_IFLAG,
        output & ~abi.RAW_OFLAG,
        control & ~abi.RAW_CFLAG | abi.CS8,
        local & ~abi.RAW_LFLAG,
    )
    pack_into("=IIII", state, 0, *flags)
    kernel.call(SYS_IOCTL, fd, abi.TCSETS, state)
    return before
