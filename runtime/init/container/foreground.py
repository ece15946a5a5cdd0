"""Follow a process to its end from the foreground: signals go on to it, and a terminal of its own is joined to ours."""

import posix
import select
from _struct import pack_into, unpack, unpack_from

from runtime.init import kernel
from runtime.init.abi import SIGNALFD_SIGINFO_BYTES, SIGWINCH, SYS_IOCTL
from runtime.init.container import abi, calls
from runtime.init.container.launched import Started

_CHUNK_BYTES = 65536


def watch(signals: tuple[int, ...]) -> int:
    """Block these signals and return the descriptor that reads them."""
    kernel.block_signals(signals)
    return kernel.signal_fd(signals)


def follow(started: Started, signal_fd: int, forwarded: tuple[int, ...]) -> int:
    """The wait status of the process."""
    before = _make_raw(0) if started.terminal >= 0 else None
    try:
        _resize(started.terminal)
        poll = select.poll()
        poll.register(signal_fd, select.POLLIN)
        if started.terminal >= 0:
            poll.register(started.terminal, select.POLLIN)
            poll.register(0, select.POLLIN)
        status = None
        while status is None:
            ready = [fd for fd, _ in poll.poll()]
            if started.terminal in ready and not _copy(started.terminal, 1):
                poll.unregister(started.terminal)
            if 0 in ready and started.terminal >= 0 and not _copy(0, started.terminal):
                poll.unregister(0)
            if signal_fd in ready:
                status = _signals(started, signal_fd, forwarded)
        while started.terminal >= 0 and _copy(started.terminal, 1):
            pass
        return status
    finally:
        if before is not None:
            kernel.call(SYS_IOCTL, 0, abi.TCSETS, before)


def _signals(started: Started, signal_fd: int, forwarded: tuple[int, ...]) -> int | None:
    data = posix.read(signal_fd, SIGNALFD_SIGINFO_BYTES * 16)
    for at in range(0, len(data), SIGNALFD_SIGINFO_BYTES):
        (number,) = unpack_from("=I", data, at)
        if number in forwarded:
            try:
                calls.signal_process(started.pidfd, number)
            except ProcessLookupError:
                continue
        elif number == SIGWINCH:
            _resize(started.terminal)
    pid, status = posix.waitpid(started.pid, posix.WNOHANG)
    return status if pid else None


def _copy(source: int, target: int) -> bool:
    """What can be read at once; False at the end. A terminal without a process on its other side says EIO."""
    try:
        data = posix.read(source, _CHUNK_BYTES)
    except OSError:
        return False
    rest = memoryview(data)
    while rest:
        rest = rest[posix.write(target, rest) :]
    return bool(data)


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
