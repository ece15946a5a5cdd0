"""The host's routing has changed: what zones have begun is looked at again.

A connected socket finds its way anew with each packet. So a SYN that the kernel sends again, or a flow's next datagram,
would come to this host itself where it was given the destination's address meanwhile: policy has been asked before
that. And a flow that has an address which the host has no more sends nothing from then on, while its zone does not
know, and goes on. Connections that are made are the kernel's: the one is reset by it, the other has no answer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol

from runtime.net.engine.loop import READ, Loop
from runtime.net.netlink import Routes, drain, listen_for_changes


class Rerouted(Protocol):
    """A zone, as zone.Zone is one."""

    def rerouted(self) -> None:
        """End what does not hold any more."""


class Rerouting:
    """Looks at all zones whenever anything of the routing of the namespace it was made in has changed."""

    def __init__(self, loop: Loop, routes: Routes, zones: Iterable[Rerouted]) -> None:
        self._routes, self._zones = routes, zones
        self.news = listen_for_changes()
        loop.watch(self.news, self, READ)

    def ready(self, source: socket.socket, mask: int) -> None:
        """There are news."""
        if drain(self.news):
            self._routes.forget()  # it may hear of this a moment later
            for zone in self._zones:
                zone.rerouted()

    def tick(self, now: float) -> None:
        """Nothing here has a deadline."""

    def abort(self) -> None:
        """Routing gave no answer: with the next change it is asked again."""
