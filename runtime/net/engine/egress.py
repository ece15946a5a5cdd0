"""The one place that asks whether a zone may reach something: policy.decide, with what the host's routing says now."""

from __future__ import annotations

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
        return self._decided(destination, route, port, protocol)


def _decide(
    deny: Sequence[Network], rules: Sequence[Rule], destination: Address, route: str | None, port: int, protocol: str
) -> bool:
    return decide(destination, route=route, port=port, protocol=protocol, deny=deny, rules=rules).allowed
