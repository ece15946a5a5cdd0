"""A small event loop over epoll: one thread, handlers with `ready`, `tick` and `abort`.

asyncio is not used: its import and its memory are the larger part of such a small process in an emulated dom0.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from typing import Protocol

log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
GONE = select.EPOLLERR | select.EPOLLHUP

URGENT_TICK_S = 0.5
SLOW_TICK_S = 30.0
_LOGGED_FAULTS = 100


class Handler(Protocol):
    """Something with sockets in the loop."""

    def ready(self, source: socket.socket, mask: int) -> None:
        """A socket may be read or written; spurious calls must do no harm."""

    def tick(self, now: float) -> None:
        """Time passed: look at the deadlines."""

    def abort(self) -> None:
        """Give everything back at once; may be called twice."""


class Loop:
    """Watches sockets, calls handlers. An exception of a handler ends that handler only."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[socket.socket, Handler, int]] = {}
        self.urgent: set[Handler] = set()  # deadlines of seconds
        self.patient: set[Handler] = set()  # deadlines of minutes
        self.faults = 0
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

    def forget(self, source: socket.socket) -> None:
        """Stop watching a socket; before it is closed, because descriptors are used again."""
        fd = source.fileno()
        if fd in self._watched:
            del self._watched[fd]
            self._epoll.unregister(fd)

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
            for fd, mask in self._epoll.poll(timeout):
                known = self._watched.get(fd)
                if known is not None:
                    self._guard(known[1], known[0], mask)
            now = time.monotonic()
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
