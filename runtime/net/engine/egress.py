"""The one place that asks whether a zone may reach something: policy.decide, with what the host's routing says now."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import lru_cache, partial
from ipaddress import ip_address

from pipeline.bundle.egress import Network, Rule
from runtime.net.netlink import Routes
from runtime.net.policy import Address, decide

LOOPBACK = ("127.0.0.1", "::1")
_REMEMBERED = 1024  # a zone talks to few addresses, and to each often
_parse = lru_cache(maxsize=_REMEMBERED)(ip_address)


class Egress:
    """Asked by the SYN gate and at the birth of every UDP flow and echo.

    gateways:  of both families. A zone's own kernel keeps loopback addresses to itself, so the gateway's stands for the
               host's: it leads there where a rule names that.
    """

    def __init__(
        self, routes: Routes, deny: Sequence[Network], rules: Sequence[Rule], gateways: tuple[str, str]
    ) -> None:
        self._routes, self._deny = routes, deny
        self.replace(rules)
        self._loopback = dict(zip(gateways, LOOPBACK, strict=True))
        # The host's own addresses that a rule has opened: no more than there are rules that name one.
        self._own: set[bytes] = set()

    def outer(self, host: str) -> str:
        """Where a connection to an address goes, seen from the host."""
        return self._loopback.get(host, host)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Ask by these from now on; what has been let out goes on."""
        decided = partial(_decide, tuple(self._deny), tuple(rules))
        self._decided = lru_cache(maxsize=_REMEMBERED)(decided)  # of all that it depends on

    def allows(self, host: str, port: int, protocol: str) -> bool:
        """May the zone reach this address at this port (0 for ICMP) by this protocol of pipeline.bundle.egress?

        Raises:  OSError where routing gives no answer.
        """
        destination = _parse(self.outer(host))
        route = self._routes.route_type(destination.packed)
        allowed = self._decided(destination, route, port, protocol)
        if allowed and route == "local":
            self._own.add(destination.packed)
        return allowed

    def holds(self, host: str, far: socket.socket) -> bool:
        """Does what a socket was let out for hold, though routing has changed?

        Not for an address that this host was given since, which would hear it now; nor where there is no way any more,
        or another address of this host's to send from: what begins anew has that.
        Raises:  OSError.
        """
        destination = _parse(self.outer(host)).packed
        kind, source = self._routes.route(destination)
        if kind != "unicast" and destination not in self._own:
            return False
        return not source or source == socket.inet_pton(far.family, far.getsockname()[0].partition("%")[0])


def _decide(
    deny: Sequence[Network], rules: Sequence[Rule], destination: Address, route: str | None, port: int, protocol: str
) -> bool:
    return decide(destination, route=route, port=port, protocol=protocol, deny=deny, rules=rules).allowed
