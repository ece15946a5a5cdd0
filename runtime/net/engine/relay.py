"""One proxied connection: an accepted socket, an outgoing one, bytes both ways, see pump.py.

End of stream is passed on as a half-close; an error as a reset of the other side. Behind both ends it is closed once
the peers have taken what was sent: a closed socket is the kernel's alone, which keeps what is in its queues for
minutes, or for as long as its peer answers. It would be in no limit, and a zone that leaves would leave it behind.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from runtime.net.engine.loop import EDGE, END, ERROR, GONE, MARK, READ, WRITE, Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.pipes import PipePool, PipeShare
from runtime.net.engine.placement import STREAM_BYTES
from runtime.net.engine.pump import TURN, Way
from runtime.net.engine.queues import Queues
from runtime.net.engine.silence import Silence, undelivered

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 s; close() then sends RST (socket(7), SO_LINGER)
_PENDING = (errno.EINPROGRESS, errno.EWOULDBLOCK)
# Told once of each change: no call for each stall, no event again and again for what must wait.
NEWS = READ | WRITE | END | MARK | EDGE
# Of an accepted socket: that it may be written is no news, before it could not be.
_ARRIVALS = NEWS & ~WRITE
_FEW_BYTES = 4096  # brought by a way: what is left of them is not worth asking for


class Target(NamedTuple):
    """Where to connect to, with a socket made in the right namespace.

    connected:  which is so already, and watched for NEWS; seen: what it was told of since then.
    """

    family: int
    address: tuple[str, int]
    make_socket: Callable[[int, int], socket.socket]
    connected: bool = False
    seen: int = 0


def reset(connection: socket.socket) -> None:
    """Close a connection so that its peer sees a reset. Harmless on a closed one."""
    let_reset(connection)
    connection.close()


def let_reset(connection: socket.socket) -> None:
    """Let a connection's peer see a reset when it is closed. Harmless on a closed one."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass


def keep_alive(connection: socket.socket) -> None:
    """Let the kernel find out within two minutes that the peer is gone. Raises OSError."""
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
        pipes: PipePool | PipeShare | None = None,
        queues: Queues | None = None,
    ) -> None:
        """pipes: what bytes move through; the loop's if none are named. queues: who says how long they may become."""
        self._loop, self._limits, self._ended = loop, limits, ended
        self._pipes = pipes or loop.pipes
        self._queues = Queues(limits.growing) if queues is None else queues
        self._near = near
        self._far: socket.socket | None = None
        self._targets = list(targets)
        self._ways: tuple[Way, Way] | None = None
        self._deadline = 0.0
        self._last_active = 0.0
        self._closed = False
        self._leaving = False
        self._silences: tuple[Silence, Silence] | None = None
        self._looked_at = 0.0

    @property
    def sent_bytes(self) -> tuple[int, int]:
        """Bytes from the accepted side to the other, and back."""
        return (self._ways[0].sent_bytes, self._ways[1].sent_bytes) if self._ways else (0, 0)

    def start(self) -> None:
        """Begin to connect; the accepted side is not read until that succeeded."""
        self._near.setblocking(False)
        self._next_target()

    def _next_target(self) -> None:
        while self._targets:
            target = self._targets.pop(0)
            try:
                far = self._far = target.make_socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                code = 0 if target.connected else far.connect_ex(target.address)
                if code == 0:
                    self._establish(far)
                    if target.seen:
                        self.ready(far, target.seen)
                    return
            except OSError:
                code = errno.EIO
            if code in _PENDING and self._far is not None:
                self._deadline = self._loop.now + self._limits.connect_timeout_s
                self._loop.urgent.add(self)
                self._loop.watch(self._far, self, NEWS)
                return
            self._drop_far()
        self.abort()

    def _drop_far(self) -> None:
        if self._far is not None:
            self._loop.close(self._far)
            self._far = None

    def ready(self, source: socket.socket, mask: int) -> None:
        """Go on with the connect or with the bytes."""
        far = self._far
        if self._closed or far is None:
            return
        ways = self._ways or self._connected(far, mask)
        if ways is None:
            return
        incoming, outgoing = ways if source is self._near else ways[::-1]
        try:
            if mask & (READ | END | GONE | MARK):
                incoming.wary = incoming.wary or mask & (END | GONE | MARK) != 0
                incoming.last = outgoing.eof
                if not incoming.full:
                    self._move(incoming)
            if outgoing.full and mask & (WRITE | GONE):
                self._move(outgoing)
        except OSError:
            self.abort()
            return
        # With something left in between the source is not read until its sink moves: this event alone says that it is
        # gone. A hang-up without an error is an end of both ways, and what was sent before is passed on.
        if incoming.full and mask & ERROR:
            self.abort()
            return
        # Behind an end that was passed on, nothing is read any more that would say that the source is gone altogether.
        if incoming.eof and outgoing.eof:
            self._leave(ways)
        elif incoming.eof and mask & GONE:
            self._finish(graceful=False)

    def _move(self, way: Way) -> None:
        now = self._last_active = self._loop.now
        if way.bulk and way.sent_bytes >= STREAM_BYTES and self._loop.placement is not None:
            self._loop.placement.streams(way.source, now)
        if way.move():
            self._loop.again(way.source)
        elif way.full and way.sink is self._near:
            self._loop.watch(self._near, self, NEWS)

    def _connected(self, far: socket.socket, mask: int) -> tuple[Way, Way] | None:
        code = far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if mask & GONE else 0
        if code == 0 and mask & WRITE:
            self._loop.urgent.discard(self)
            return self._establish(far)
        if code:
            self._drop_far()
            self._next_target()
        return None

    def _establish(self, far: socket.socket) -> tuple[Way, Way]:
        near, turn = self._near, self._loop.burst(TURN)
        shared = (self._pipes, self._limits.chunk_bytes, self._queues, turn)
        # The accepted side has TCP_NODELAY, see acceptor.py.
        self._ways = (Way(near, far, *shared, lazy=True), Way(far, near, *shared))
        self._last_active = self._loop.now
        self._loop.patient.add(self)
        self._loop.watch(near, self, _ARRIVALS)
        self._loop.watch(far, self, NEWS)
        return self._ways

    def tick(self, now: float) -> None:
        """Enforce the connect and the idle limit."""
        if self._ways is None:
            if now >= self._deadline:
                self._drop_far()
                self._next_target()
        elif now - self._last_active >= self._limits.idle_timeout_s:
            self.abort()
        elif self._leaving and not any(map(_waits, self._ways)):
            self._finish(graceful=True)
        elif self._far is not None:
            self._look(self._near, self._far, now)

    def _look(self, near: socket.socket, far: socket.socket, now: float) -> None:
        if self._silences is None:
            # Only now: most connections are over before the first tick, and are spared eight calls.
            self._silences = (Silence(), Silence())
            keep_alive(near)
            keep_alive(far)
        if self._last_active < self._looked_at and not any(silence.open for silence in self._silences):
            return  # it was idle then, and is
        self._looked_at = now
        try:
            most_s = self._limits.silence_s
            over = [each.lasts(end, now, most_s) for each, end in zip(self._silences, (near, far), strict=True)]
        except OSError:
            over = [True]
        if any(over):
            self.abort()

    @property
    def connected(self) -> bool:
        """Has a target taken the connection?"""
        return self._ways is not None

    def abort(self) -> None:
        """Reset both sides."""
        self._finish(graceful=False)

    def _leave(self, ways: tuple[Way, Way]) -> None:
        """Both ways have ended: close, once what they brought has been taken."""
        if not any(map(_waits, ways)):
            self._finish(graceful=True)
        elif not self._leaving:
            self._leaving = True
            for way in ways:
                with contextlib.suppress(OSError):  # where it was passed on before and is over
                    way.sink.shutdown(socket.SHUT_WR)
            self._loop.urgent.add(self)

    def _finish(self, *, graceful: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.discard(self)
        for way in self._ways or ():
            way.release()
        for connection in (self._near, self._far):
            if connection is not None:
                if not graceful:
                    let_reset(connection)
                self._loop.close(connection)
        self._ended(self, self._ways is not None)


def _waits(way: Way) -> bool:
    """Has a way that has ended brought what its sink's peer has yet to take?"""
    return way.sent_bytes >= _FEW_BYTES and undelivered(way.sink)
