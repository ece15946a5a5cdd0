"""The packet sockets on a network's bridge: each packet goes to the one part it is for."""

from __future__ import annotations

import socket
from collections.abc import Callable

from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.packet import TCP

_PACKET_BYTES = 65536

Take = Callable[[bytes], None]


class Tap:
    """What takes packets from packet sockets, and does with each what its `take` says."""

    def __init__(self, loop: Loop, most: int) -> None:
        """most: so many at once when nobody else waits, see Loop.burst."""
        self._loop, self._burst = loop, loop.burst(most)

    def listen(self, source: socket.socket) -> None:
        """Take packets from a socket."""
        source.setblocking(False)
        self._loop.watch(source, self, READ)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Take a few packets."""
        for _ in range(self._burst):
            try:
                packet = source.recv(_PACKET_BYTES)
            except OSError:  # none left; or the bridge is gone, and with it all traffic
                return
            self.take(packet)

    def take(self, packet: bytes) -> None:
        """One packet, which the socket's filter has let through."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Nothing here has a deadline."""

    def abort(self) -> None:
        """One packet failed in an unforeseen way; the others go on."""


class Requests(Tap):
    """Takes SYNs and echo requests."""

    def __init__(self, loop: Loop, take_syn: Take, take_echo: Take) -> None:
        # What comes here comes one at a time, and to find that there is no second costs as much as to be told of one.
        super().__init__(loop, 1)
        self._take_syn, self._take_echo = take_syn, take_echo

    def take(self, packet: bytes) -> None:
        """See Tap. The filter has read what is looked at here, so it is there."""
        if packet[9 if packet[0] >> 4 == 4 else 6] == TCP:
            self._take_syn(packet)
        else:
            self._take_echo(packet)
