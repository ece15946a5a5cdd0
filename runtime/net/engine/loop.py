"""A small event loop over epoll: one thread, handlers with `ready`, `tick` and `abort`.

Where several zones share it, each has a part with an epoll of its own inside the loop's. The loop's says which parts
have something to do, and each of those has its turn: a tenth of a millisecond, or two sockets where these take longer.
A thousand busy streams of one zone, or a flood of SYNs, are one such turn to another's, and that several times in the
course of a connection. So in a part nothing takes more at once than it must.

asyncio is not used: its import and its memory are the larger part of such a small process in an emulated dom0.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from typing import Protocol

from runtime.net.engine.pipes import PipePool
from runtime.net.engine.placement import Placement

log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
END = select.EPOLLRDHUP  # the peer sends no more; what it sent before may still have to be read
ERROR = select.EPOLLERR  # a reset, or what else the kernel says of a connection that it gave up
GONE = ERROR | select.EPOLLHUP
MARK = select.EPOLLPRI  # there is urgent data
EDGE = select.EPOLLET  # tell of changes only; `again` asks for what is so already

URGENT_TICK_S = 0.5
SLOW_TICK_S = 10.0
_LOGGED_FAULTS = 100
_EVENTS = 64  # at most at once; epoll_wait is given memory for all of them each time
# A part's turn: so many of its sockets at most, and none more once that much time is over. Asked for a few at a time:
# each few cost an epoll_wait, and those that have been told of have to be served.
_TURNS, _FEW, _TURN_S = 8, 2, 100e-6


Source = socket.socket | select.epoll


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

    pipes:      what handlers move bytes through, if there are any; all of a loop share them.
    placement:  of the thread that runs it, where that may choose its CPU.
    """

    def __init__(self, pipes: PipePool | None = None, placement: Placement | None = None) -> None:
        self.pipes = pipes or PipePool(0)
        self.placement = placement
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Source, Handler, int]] = {}
        self._parts: set[Part] = set()
        self.urgent: set[Handler] = set()  # deadlines of seconds
        self.patient: set[Handler] = set()  # deadlines of minutes
        self.faults = 0
        self.now = time.monotonic()  # when the loop last woke up
        self._stale: set[int] = set()
        self._running = True

    def burst(self, most: int) -> int:
        """How many of what waits in one socket a handler is to take at once, of so many when nobody else waits."""
        return most

    def part(self) -> Loop:
        """For one of several that are to have equal turns: it works as this one, which runs it. Raises OSError."""
        return Part(self)

    def end(self) -> None:
        """Watch nothing any more: for a part, whose owner has ended."""

    def watch(self, source: Source, handler: Handler, mask: int) -> None:
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

    def forget(self, source: Source) -> None:
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
            for part in self._parts:
                part.now = now
            self._serve(events)
            if self.urgent and now >= next_urgent:
                next_urgent = now + URGENT_TICK_S
                self._tick(self.urgent, now)
            if now >= next_slow:
                next_slow = now + SLOW_TICK_S
                self._tick(self.patient, now)
                if self.placement is not None:
                    self.placement.rest(now)

    def _serve(self, events: list[tuple[int, int]]) -> None:
        self._stale.clear()
        for fd, mask in events:
            known = self._watched.get(fd)
            # What was told of a socket that is closed by now is not about the one that has its number.
            if known is not None and fd not in self._stale:
                self._guard(known[1], known[0], mask)

    def _tick(self, handlers: set[Handler], now: float) -> None:
        for handler in list(handlers):
            try:
                handler.tick(now)
            except Exception:
                self._fault(handler)

    def _guard(self, handler: Handler, source: Source, mask: int) -> None:
        try:
            handler.ready(source, mask)  # type: ignore[arg-type]  # a part alone watches an epoll, and is told of it
        except Exception:
            self._fault(handler)

    def _fault(self, handler: Handler) -> None:
        self.faults += 1
        if self.faults <= _LOGGED_FAULTS:  # what a zone can cause again and again must not fill the disk
            log.exception("a handler failed: %s", type(handler).__name__)
        handler.abort()


class Part(Loop):
    """One of several that share a loop; a handler of that loop's."""

    def __init__(self, whole: Loop) -> None:
        super().__init__(whole.pipes, whole.placement)
        self._whole = whole
        self.urgent, self.patient = whole.urgent, whole.patient
        whole.watch(self._epoll, self, READ)
        whole._parts.add(self)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Have a turn. What is left is told of again, once the other parts have had theirs."""
        ends = time.monotonic() + _TURN_S
        for _ in range(_TURNS // _FEW):
            events = self._epoll.poll(0, _FEW)
            self._serve(events)
            if len(events) < _FEW or time.monotonic() >= ends:
                return

    def burst(self, most: int) -> int:
        """See Loop."""
        return max(1, most // _TURNS)

    def tick(self, now: float) -> None:
        """The deadlines of its handlers are the loop's."""

    def abort(self) -> None:
        """Its handlers are ended one by one."""

    def end(self) -> None:
        """See Loop. Harmless twice."""
        if self in self._whole._parts:
            self._whole._parts.discard(self)
            self._whole.forget(self._epoll)
            self._epoll.close()

    def _fault(self, handler: Handler) -> None:
        self._whole._fault(handler)
