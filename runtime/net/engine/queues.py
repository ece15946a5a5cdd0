"""How much of the kernel's memory a zone's connections may hold: few have queues that grow, all others short ones.

The kernel lets a socket's queues grow with what passes: towards the zone to what `plan.queue_sysctls` says, towards the
outside to what the host allows, 6 MiB to receive and 4 MiB to send where nothing else was set. One that is not read
grows as well, as long as its peer sends (net/ipv4/tcp_input.c, tcp_clamp_window): a thousand connections that stand
still would be a thousand times that. So a way that stalls, or has brought more than a socket holds in the beginning,
asks here; where too many have been let grow already, and none of them rests, its queues get a fixed length.
Source: socket(7), SO_RCVBUF, whose double is what is accounted; tcp(7), tcp_rmem, tcp_wmem.
"""

from __future__ import annotations

import socket
import time
from typing import Protocol

FREE_BYTES = 1 << 16  # brought by a way before it asks: queues have not grown by then
SHORT_BYTES = 32768  # twice this is what the kernel then accounts a queue
RESTING_S = 10.0


class Grows(Protocol):
    """One direction of a connection, as pump.Way is one."""

    source: socket.socket
    sink: socket.socket
    sent_bytes: int
    full: bool


class Queues:
    """One zone's ways that may have long queues.

    most:  so many of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._grown: dict[Grows, tuple[int, float]] = {}  # what it had brought when it was looked at, and when that was

    def __len__(self) -> int:
        return len(self._grown)

    def ask(self, way: Grows) -> None:
        """Let a way's queues grow from now on, or shorten them for good. Effects: socket options."""
        if len(self._grown) >= self._most and not self._make_room():
            shorten(way)
        else:
            self._grown[way] = (way.sent_bytes, time.monotonic())

    def leave(self, way: Grows) -> None:
        """A way has ended; harmless for one that never asked."""
        self._grown.pop(way, None)

    def _make_room(self) -> bool:
        """Shorten the queues of one that has brought nothing for a while."""
        now = time.monotonic()
        for way, (brought, since) in self._grown.items():
            if way.sent_bytes != brought:
                self._grown[way] = (way.sent_bytes, now)
            elif now - since >= RESTING_S and not way.full:
                shorten(way)
                del self._grown[way]
                return True
        return False


def shorten(way: Grows) -> None:
    """Hold what waits at both ends of a way to SHORT_BYTES. Harmless at one that is gone."""
    try:
        way.source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SHORT_BYTES)
        way.sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SHORT_BYTES)
    except OSError:
        pass
