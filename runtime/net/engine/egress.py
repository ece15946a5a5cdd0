"""The one place that asks whether a zone may reach something: policy.decide, with what the host's routing says now."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address

from pipeline.bundle.egress import Network, Rule
from runtime.net.netlink import Rtnetlink
from runtime.net.policy import decide

_parse = lru_cache(maxsize=1024)(ip_address)


class Egress:
    """Asked by the SYN gate and at the birth of every UDP flow and echo."""

    def __init__(self, routes: Rtnetlink, deny: Sequence[Network], rules: Sequence[Rule]) -> None:
        self._routes, self._deny, self._rules = routes, deny, rules

    def replace(self, rules: Sequence[Rule]) -> None:
        """Ask by these from now on; what has been let out goes on."""
        self._rules = rules

    def allows(self, host: str, port: int) -> bool:
        """May the zone reach this address at this port (0 for ICMP)? Raises OSError where routing gives no answer."""
        destination = _parse(host)
        route = self._routes.route_type(destination.packed)
        return decide(destination, route=route, port=port, deny=self._deny, rules=self._rules).allowed
