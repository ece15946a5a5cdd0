"""One proxied connection: an accepted socket, an outgoing one, bytes both ways.

Each direction holds at most one chunk: it is read only when the chunk before it is written, so a slow reader slows its
sender down through TCP's own window. End of stream is passed on as a half-close; an error as a reset of the other side.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from runtime.net.engine.loop import GONE, READ, WRITE, Loop
from runtime.net.engine.model import Limits

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s; close() then sends RST (socket(7), SO_LINGER)
_PENDING = (errno.EINPROGRESS, errno.EWOULDBLOCK)


class Target(NamedTuple):
    """Where to connect to, with a socket made in the right namespace."""

    family: int
    address: tuple[str, int]
    make_socket: Callable[[int, int], socket.socket]


class Way:
    """One direction."""

    __slots__ = ("eof", "pending", "sink", "source", "total_bytes")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.pending: memoryview | None = None
        self.eof = False
        self.total_bytes = 0


def reset(connection: socket.socket) -> None:
    """Close a connection so that its peer sees a reset. Harmless on a closed one."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass
    connection.close()


def prepare(connection: socket.socket) -> None:
    """Options of both sides: no delay on top of the peers' own, and dead peers are found out within two minutes."""
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6)


class Relay:
    """Connects to the first target that takes it, then pumps. Calls `ended(relay, connected)` exactly once."""

    def __init__(
        self,
        loop: Loop,
        limits: Limits,
        near: socket.socket,
        targets: Sequence[Target],
        ended: Callable[[Relay, bool], None],
    ) -> None:
        self._loop, self._limits, self._ended = loop, limits, ended
        self._near = near
        self._far: socket.socket | None = None
        self._targets = list(targets)
        self._ways: tuple[Way, Way] | None = None
        self._deadline = 0.0
        self._last_active = 0.0
        self._closed = False

    @property
    def sent_bytes(self) -> tuple[int, int]:
        """Bytes from the accepted side to the other, and back."""
        return (self._ways[0].total_bytes, self._ways[1].total_bytes) if self._ways else (0, 0)

    def start(self) -> None:
        """Begin to connect; the accepted side is not read until that succeeded."""
        try:
            prepare(self._near)
        except OSError:  # gone already
            self.abort()
            return
        self._next_target()

    def _next_target(self) -> None:
        while self._targets:
            target = self._targets.pop(0)
            try:
                far = self._far = target.make_socket(target.family, socket.SOCK_STREAM)
                prepare(far)
                code = far.connect_ex(target.address)
            except OSError:
                code = errno.EIO
            if code in (0, *_PENDING) and self._far is not None:
                self._deadline = time.monotonic() + self._limits.connect_timeout_s
                self._loop.urgent.add(self)
                self._loop.watch(self._far, self, WRITE)
                return
            self._drop_far()
        self.abort()

    def _drop_far(self) -> None:
        if self._far is not None:
            self._loop.forget(self._far)
            self._far.close()
            self._far = None

    def ready(self, source: socket.socket, mask: int) -> None:
        """Go on with the connect or with the bytes."""
        if self._closed or self._far is None:
            return
        if self._ways is None:
            code = self._far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0 and not mask & WRITE:
                return
            if code:
                self._drop_far()
                self._next_target()
                return
            self._loop.urgent.discard(self)
            self._loop.patient.add(self)
            self._ways = (Way(self._near, self._far), Way(self._far, self._near))
            self._last_active = time.monotonic()
        else:
            for way in self._ways:
                wanted = READ if way.source is source else WRITE
                if mask & (wanted | GONE) and not self._pump(way):
                    self.abort()
                    return
        if all(way.eof for way in self._ways):
            self._finish(graceful=True)
            return
        up, down = self._ways
        for connection, incoming, outgoing in ((self._near, up, down), (self._far, down, up)):
            wants_read = READ if not incoming.eof and incoming.pending is None else 0
            self._loop.watch(connection, self, wants_read | (WRITE if outgoing.pending is not None else 0))

    def _pump(self, way: Way) -> bool:
        """Move one chunk as far as it goes. False: a side is gone."""
        try:
            if way.pending is None:
                if way.eof:
                    return True
                data = way.source.recv(self._limits.chunk_bytes)
                if not data:
                    way.eof = True
                    way.sink.shutdown(socket.SHUT_WR)
                    return True
                way.pending = memoryview(data)
            sent = way.sink.send(way.pending)
            way.total_bytes += sent
            way.pending = way.pending[sent:] if sent < len(way.pending) else None
            self._last_active = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def tick(self, now: float) -> None:
        """Enforce the connect and the idle limit."""
        if self._ways is None:
            if now >= self._deadline:
                self._drop_far()
                self._next_target()
        elif now - self._last_active >= self._limits.idle_timeout_s:
            self.abort()

    @property
    def connected(self) -> bool:
        """Has a target taken the connection?"""
        return self._ways is not None

    def abort(self) -> None:
        """Reset both sides."""
        self._finish(graceful=False)

    def _finish(self, *, graceful: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.discard(self)
        for connection in (self._near, self._far):
            if connection is not None:
                self._loop.forget(connection)
                if graceful:
                    connection.close()
                else:
                    reset(connection)
        self._ended(self, self._ways is not None)
