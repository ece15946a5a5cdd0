"""Descriptors as ends of streams: what is read goes to the host, what the host sends is written.

Nothing is read before it can be passed on and nothing is taken from the host beyond its credit, so a slow end holds
back its own stream, in the kernel's buffer or on the host, and memory stays bounded.
"""

import posix
import time

from runtime.init import kernel
from runtime.init.agent.loop import READ, WRITE, Loop

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

_TERMINAL_QUIET_S = 0.1  # what a terminal was given just before its last process ended still comes within this
# Others that open it anew can write to it for ever: behind the end, so much is read of it, which is more than it holds
# (drivers/tty/tty_buffer.c, TTYB_DEFAULT_MEM_LIMIT), and so long waited for it in all.
_TERMINAL_BYTES, _TERMINAL_WAITS_S = 1 << 20, 2.0
_EOT = b"\x04"
_ENDLESS = 1 << 62


class Source:
    """A non-blocking pipe, terminal or socket that is read.

    take() gives bytes, b"" at the end, or None when there is nothing now; then `wake` is called when to try again.
    `failed` is the error that was taken for the end, or 0.
    """

    def __init__(self, loop: Loop, fd: int, *, terminal: bool = False) -> None:
        self._loop, self._fd, self._terminal = loop, fd, terminal
        self._last_chance = False
        self._left = _ENDLESS
        self._quiet: int | None = None
        self._quiet_since_s, self._patience_s = 0.0, _TERMINAL_WAITS_S
        self._turn: int | None = None
        self.failed = 0
        self.wake: Callable[[], object] = _nothing

    def take(self, limit: int) -> bytes | None:
        """At most `limit` bytes."""
        if self._fd < 0:
            return b""
        try:
            data = posix.read(self._fd, min(limit, self._left))
        except BlockingIOError:
            if self._last_chance and not self._terminal:
                self.close()
                return b""
            self._loop.watch(self._fd, READ, self._ready)
            if self._last_chance and self._quiet is None:
                self._quiet_since_s = time.monotonic()
                self._quiet = self._loop.after(min(_TERMINAL_QUIET_S, self._patience_s), self._end_of_terminal)
            return None
        except OSError as error:  # EIO: the last process has closed its side of the terminal; ECONNRESET
            data, self.failed = b"", error.errno or 0
        self._left -= len(data)
        if not data:
            self.close()
        return data

    def later(self) -> None:
        """There may be more; wake when others have had their turn."""
        if self._fd >= 0 and self._last_chance:
            # Not when it is ready: it need not become that any more, and that there is nothing now is the end.
            self._loop.cancel(self._turn)
            self._turn = self._loop.after(0, self.wake)
        elif self._fd >= 0:
            self._loop.watch(self._fd, READ, self._ready)

    def drain(self) -> None:
        """The process has ended: what is left now is all there will be, whoever else holds the other side.

        A terminal has been hung up by then, and who wrote to it cannot any more without opening it again.
        """
        if not self._last_chance and self._fd >= 0:
            self._left = _TERMINAL_BYTES if self._terminal else kernel.unread_bytes(self._fd)
        self._last_chance = True
        self.wake()

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            self._loop.cancel(self._quiet)
            self._loop.cancel(self._turn)
            self._loop.forget(self._fd)
            posix.close(self._fd)
            self._fd = -1

    def _ready(self) -> None:
        self._loop.forget(self._fd)
        if self._quiet is not None:
            self._loop.cancel(self._quiet)
            self._patience_s = max(0.0, self._patience_s - (time.monotonic() - self._quiet_since_s))
            self._quiet = None
        self.wake()

    def _end_of_terminal(self) -> None:
        self.close()
        self.wake()


class Sink:
    """A non-blocking pipe, terminal or socket that is written; keeps what does not fit yet.

    Each piece comes with a function that is told how many of its bytes are gone: written, or dropped because nobody
    reads any more. `failed` is the error that said so, or 0.
    """

    def __init__(self, loop: Loop, fd: int, *, terminal: bool = False) -> None:
        self._loop, self._fd, self._terminal = loop, fd, terminal
        self._waiting: list[tuple[bytes, Callable[[int], object]]] = []
        self._ending = False
        self.failed = 0

    @property
    def open(self) -> bool:
        """Does anybody read, as far as is known?"""
        return self._fd >= 0 and not self._ending

    @property
    def closed(self) -> bool:
        """Will nothing be written any more? One that is not open may still have bytes to write."""
        return self._fd < 0

    def feed(self, data: bytes, gone: "Callable[[int], object]") -> None:
        """Write, now or later."""
        self._waiting.append((data, gone))
        self._flush()

    def finish(self) -> None:
        """No more will come: the reader sees the end when it has read what is there."""
        if self._terminal:
            # A terminal has no end; what its reader takes for one is the character of that name.
            self.feed(_EOT, _nothing_of)
            return
        self._ending = True
        self._flush()

    def close(self) -> None:
        """Write no more; what waits is dropped."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            posix.close(self._fd)
            self._fd = -1
        waiting, self._waiting = self._waiting, []
        for data, gone in waiting:
            gone(len(data))

    def _flush(self) -> None:
        while self._waiting and self._fd >= 0:
            data, gone = self._waiting[0]
            try:
                count = posix.write(self._fd, data)
            except BlockingIOError:
                self._loop.watch(self._fd, WRITE, self._flush)
                return
            except OSError as error:  # EPIPE, EIO, ECONNRESET
                self.failed = error.errno or 0
                break
            if count == len(data):
                del self._waiting[0]
            else:
                self._waiting[0] = (data[count:], gone)
            gone(count)
        if self._waiting or self._ending:
            self.close()
        elif self._fd >= 0:
            self._loop.forget(self._fd)


def _nothing() -> None:
    """Nobody is to be woken."""


def _nothing_of(count: int) -> None:
    """Nobody wants to know."""
