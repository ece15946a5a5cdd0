"""A small event loop over epoll: one thread, handlers with `ready`, `tick` and `abort`.

asyncio is not used: its import and its memory are the larger part of such a small process in an emulated dom0.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from typing import Protocol

from runtime.net.engine.pipes import PipePool

log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
END = select.EPOLLRDHUP  # the peer sends no more; what it sent before may still have to be read
GONE = select.EPOLLERR | select.EPOLLHUP
MARK = select.EPOLLPRI  # there is urgent data
EDGE = select.EPOLLET  # tell of changes only; `again` asks for what is so already

URGENT_TICK_S = 0.5
SLOW_TICK_S = 10.0
_LOGGED_FAULTS = 100
_EVENTS = 64  # at most in one turn; epoll_wait is given memory for all of them each time


class Handler(Protocol):
    """Something with sockets in the loop."""

    def ready(self, source: socket.socket, mask: int) -> None:
        """A socket may be read or written; spurious calls must do no harm."""

    def tick(self, now: float) -> None:
        """Time passed: look at the deadlines."""

    def abort(self) -> None:
        """Give everything back at once; may be called twice."""


class Loop:
    """Watches sockets, calls handlers. An exception of a handler ends that handler only.

    pipes:  what handlers move bytes through, if there are any; all of a loop share them.
    """

    def __init__(self, pipes: PipePool | None = None) -> None:
        self.pipes = pipes or PipePool(0)
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[socket.socket, Handler, int]] = {}
        self.urgent: set[Handler] = set()  # deadlines of seconds
        self.patient: set[Handler] = set()  # deadlines of minutes
        self.faults = 0
        self.now = time.monotonic()  # when the loop last woke up
        self._stale: set[int] = set()
        self._running = True

    def watch(self, source: socket.socket, handler: Handler, mask: int) -> None:
        """Set what is waited for on a socket; 0 takes it out, since errors and hang-ups are reported unasked."""
        fd = source.fileno()
        known = self._watched.get(fd)
        if known is None:
            if mask:
                self._epoll.register(fd, mask)
        elif not mask:
            self._epoll.unregister(fd)
        elif known[2] != mask:
            self._epoll.modify(fd, mask)
        if mask:
            self._watched[fd] = (source, handler, mask)
        else:
            self._watched.pop(fd, None)

    def again(self, source: socket.socket) -> None:
        """Tell of a socket watched by EDGE as if all that is so had just come."""
        fd = source.fileno()
        self._epoll.modify(fd, self._watched[fd][2])

    def forget(self, source: socket.socket) -> None:
        """Stop watching a socket; before it is closed, because descriptors are used again."""
        fd = source.fileno()
        if fd in self._watched:
            del self._watched[fd]
            self._stale.add(fd)
            self._epoll.unregister(fd)

    def close(self, source: socket.socket) -> None:
        """`forget` and close a socket that nothing else holds: then the kernel's epoll forgets it by itself."""
        fd = source.fileno()
        if self._watched.pop(fd, None) is not None:
            self._stale.add(fd)
        source.close()

    def discard(self, handler: Handler) -> None:
        """Forget the deadlines of a handler."""
        self.urgent.discard(handler)
        self.patient.discard(handler)

    def stop(self) -> None:
        """Let `run` return."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        next_slow = time.monotonic() + SLOW_TICK_S
        next_urgent = 0.0
        while self._running:
            # Nothing to wait for with a deadline: sleep for good, an idle network costs no CPU.
            timeout = URGENT_TICK_S if self.urgent else SLOW_TICK_S if self.patient else None
            events = self._epoll.poll(timeout, _EVENTS)
            now = self.now = time.monotonic()
            self._stale.clear()
            for fd, mask in events:
                known = self._watched.get(fd)
                # What was told of a socket that is closed by now is not about the one that has its number.
                if known is not None and fd not in self._stale:
                    self._guard(known[1], known[0], mask)
            if self.urgent and now >= next_urgent:
                next_urgent = now + URGENT_TICK_S
                self._tick(self.urgent, now)
            if now >= next_slow:
                next_slow = now + SLOW_TICK_S
                self._tick(self.patient, now)

    def _tick(self, handlers: set[Handler], now: float) -> None:
        for handler in list(handlers):
            try:
                handler.tick(now)
            except Exception:
                self._fault(handler)

    def _guard(self, handler: Handler, source: socket.socket, mask: int) -> None:
        try:
            handler.ready(source, mask)
        except Exception:
            self._fault(handler)

    def _fault(self, handler: Handler) -> None:
        self.faults += 1
        if self.faults <= _LOGGED_FAULTS:  # what a zone can cause again and again must not fill the disk
            log.exception("a handler failed: %s", type(handler).__name__)
        handler.abort()
