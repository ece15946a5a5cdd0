"""What a zone may reach: one pure function, asked for every SYN, UDP flow and ICMP echo before anything leaves.

Closed by default: this host itself, loopback, link-local, cloud metadata, multicast and every other zone network. It
judges addresses, never names, so what a name resolves to (DNS rebinding) does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, NamedTuple, cast

from pipeline.bundle.egress import TCP, BadRule, Network, Rule
from runtime.net.pool import Pools, pools

Address = IPv4Address | IPv6Address

# Source: IANA special-purpose address registries; the metadata addresses are the clouds' own documentation's, and in
# cloud-init's data sources: those that are not in 169.254.0.0/16 or fe80::/10.
# A rule that allows a part of one of these, and nothing beside it, opens that part.
CLOSED_UNLESS_NAMED: tuple[tuple[str, str], ...] = (
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local and metadata"),
    ("168.63.129.16/32", "metadata"),
    ("100.100.100.200/32", "metadata"),
    ("192.0.0.192/32", "metadata"),
    ("::1/128", "loopback"),
    ("fd00:ec2::254/128", "metadata"),
    ("fd00:ec2::23/128", "metadata"),
    ("fd20:ce::254/128", "metadata"),
    ("fd00:c1::a9fe:a9fe/128", "metadata"),
    ("fd00:42::42/128", "metadata"),
    ("fd00:a9fe:a9fe::1/128", "metadata"),
    ("fd00:100::100:200/128", "metadata"),
)
# These stay closed: there is nothing to reach there, or no way to say on which link.
CLOSED: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved and broadcast"),
    # All of ::/96 is unspecified, loopback or IPv4-compatible.
    ("::/96", "unspecified or IPv4-compatible"),
    # These carry an IPv4 address inside: what is closed above would be open through them.
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("2001::/32", "Teredo"),
    ("2002::/16", "6to4"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)


class Closed(NamedTuple):
    """A network that is closed to every zone, and what it is."""

    network: Network
    reason: str
    nameable: bool


_CLOSED = tuple(
    Closed(ip_network(text), reason, nameable)
    for table, nameable in ((CLOSED_UNLESS_NAMED, True), (CLOSED, False))
    for text, reason in table
)


@lru_cache(maxsize=1)
def closed_networks(of: Pools) -> tuple[Closed, ...]:
    """All that is closed on a host with these pools."""
    return (*(Closed(pool, "another zone network", False) for pool in of), *_CLOSED)


def matches(rule: Rule, destination: Address, port: int, protocol: str) -> bool:
    """Is this rule about that?"""
    if rule.protocol not in ("", protocol):
        return False
    return rule.first_port <= port <= rule.last_port and (rule.network is None or destination in rule.network)


def check_rule(rule: Rule, text: str, of: Pools | None = None) -> None:
    """Raises BadRule for one that allows only what no rule opens. of: other pools than those in use."""
    if rule.allow and rule.network is not None:
        closed = closed_around(rule.network, of)
        if closed is not None and not closed.nameable:
            raise BadRule(text, f"what a rule can open, not {closed.reason} addresses")


def may_open(rule: Rule) -> bool:
    """Could this rule open what is closed unless named? A single address could be the host's own."""
    if not rule.allow or rule.network is None:
        return False
    return rule.network.num_addresses == 1 or closed_around(rule.network) is not None


class Verdict(NamedTuple):
    """May it, and if not, why."""

    allowed: bool
    reason: str


def closed_around(network: Network, of: Pools | None = None) -> Closed | None:
    """The closed network that holds all of another one."""
    for closed in closed_networks(of or pools()):
        # Of one version they can be compared, which the types cannot say.
        if closed.network.version == network.version and network.subnet_of(cast(Any, closed.network)):
            return closed
    return None


@lru_cache(maxsize=1024)  # a zone talks to few addresses, and to each often
def _closed(destination: Address, of: Pools) -> Closed | None:
    """What closes an address to every zone."""
    return next((closed for closed in closed_networks(of) if destination in closed.network), None)


def decide(
    destination: Address,
    *,
    route: str | None,
    port: int = 0,
    protocol: str = TCP,
    deny: Sequence[Network] = (),
    rules: Sequence[Rule] = (),
) -> Verdict:
    """May a zone reach `destination`?

    route:   what the host's routing says of it ("unicast", "local", "broadcast", "anycast", ...), None when it has
             no route. Only this knows every address of the host, also one given a moment ago.
    port:    of TCP or UDP; 0 for ICMP. protocol: which of egress.PROTOCOLS.
    deny:    further closed networks of this host, such as the developer's machine behind the lab; no rule opens them.
    rules:   the zone's own; the first that matches decides. What is closed unless named is open to the rules alone
             that name it: a part of the closed network, or exactly this one address where it is the host's own.
    Effects: none.
    """
    closed = _closed(destination, pools())
    if closed is not None and not closed.nameable:
        return Verdict(False, closed.reason)
    if any(destination in network for network in deny):
        return Verdict(False, "denied by configuration")
    if route not in (None, "unicast", "local"):
        return Verdict(False, f"{route} address of this host")
    own = route == "local" and (closed is None or closed.reason != "loopback")
    for rule in rules:
        if matches(rule, destination, port, protocol):
            if not rule.allow:
                return Verdict(False, "denied by a rule")
            if _names(rule, closed, own=own):
                return Verdict(True, "")
    if closed is not None:
        return Verdict(False, closed.reason)
    return Verdict(False, "local address of this host") if own else Verdict(True, "")


def _names(rule: Rule, closed: Closed | None, *, own: bool) -> bool:
    """Does a rule that matches an address mean what is closed there? Where nothing is, it does."""
    network = rule.network
    if closed is not None and (network is None or not network.subnet_of(cast(Any, closed.network))):
        return False
    return not own or (network is not None and network.num_addresses == 1)
