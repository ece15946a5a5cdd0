"""The packet sockets on a network's bridge: each packet goes to the one part it is for."""

from __future__ import annotations

import socket
from collections.abc import Callable

from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.packet import TCP, protocol_of

_BURST = 8  # packets taken before the loop's others get their turn, see Loop.burst
_PACKET_BYTES = 65536

Take = Callable[[bytes], None]


class Tap:
    """Takes SYNs and echo requests."""

    def __init__(self, loop: Loop, source: socket.socket, take_syn: Take, take_echo: Take) -> None:
        self._take_syn, self._take_echo = take_syn, take_echo
        self._burst = loop.burst(_BURST)
        source.setblocking(False)
        loop.watch(source, self, READ)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Take a few packets."""
        for _ in range(self._burst):
            try:
                packet = source.recv(_PACKET_BYTES)
            except OSError:  # none left; or the bridge is gone, and with it all traffic
                return
            if protocol_of(packet) == TCP:
                self._take_syn(packet)
            else:
                self._take_echo(packet)

    def tick(self, now: float) -> None:
        """Nothing here has a deadline."""

    def abort(self) -> None:
        """One packet failed in an unforeseen way; the others go on."""
