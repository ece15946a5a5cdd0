"""What flows of UDP have in common, whoever began them: the zone (udp.py), a client of a published port (inflow.py)."""

from __future__ import annotations

import socket
import time
from typing import Any

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.datagrams import push

# So many flows get queues of the kernel's default size, 208 KiB; the others' are short, twice this (socket(7)). With
# Limits.udp_flows = 256 the queues of flows and clients hold at most 42 MiB of this host's memory.
_DEEP_QUEUES = 32
_SHALLOW_BYTES = 16384


class Session:
    """Datagrams between a port of the zone's and one outside.

    near:  the socket that is connected to the zone. answered: has whoever did not begin it said anything?
    """

    __slots__ = ("_near", "_traffic", "answered", "began", "down_bytes", "last_active", "up_bytes")

    def __init__(self, traffic: Traffic, near: socket.socket) -> None:
        self._traffic, self._near = traffic, near
        self.began = self.last_active = time.monotonic()
        self.answered = False
        self.up_bytes = self.down_bytes = 0

    def deliver(self, data: bytes | memoryview) -> None:
        """One datagram for the zone."""
        counts = self._traffic.counts
        try:
            push(self._near, data)
        except OSError:  # a full queue loses datagrams, as every queue does
            counts["lost"] += 1
        else:
            counts["bytes_down"] += len(data)
            self.down_bytes += len(data)

    def tick(self, now: float) -> None:
        """End what has been idle for long."""
        if now - self.last_active >= self._traffic.limits.udp_idle_s:
            self.abort()

    def abort(self) -> None:
        """End it. Harmless twice."""
        raise NotImplementedError


def make_room(sessions: dict[Any, Any], traffic: Traffic, *, outside: bool = False) -> None:
    """Let one more be begun, at another's expense if need be. outside: it takes one of the host's ports."""
    most = traffic.limits.udp_flows
    if traffic.full(len(sessions), most) if outside else len(sessions) >= most:
        traffic.counts["limited"] += 1
        # Who scans ports gets no answers, and pushes out nobody who does.
        min(sessions.values(), key=lambda session: (session.answered, session.last_active)).abort()


def shorten_queues(sessions: dict[Any, Any], *of: socket.socket) -> None:
    """Where there are many, a new one's sockets may hold less."""
    if len(sessions) > _DEEP_QUEUES:
        for each in of:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SHALLOW_BYTES)
