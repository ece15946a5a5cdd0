"""What a zone may reach: one pure function, asked for every SYN, UDP flow and ICMP echo before anything leaves.

Closed by default: this host itself, loopback, link-local, cloud metadata, multicast and every other zone network. It
judges addresses, never names, so what a name resolves to (DNS rebinding) does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple

from runtime.net.pool import POOL4, POOL6

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Source: IANA special-purpose address registries; the metadata addresses are the clouds' own documentation's.
CLOSED: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local and metadata"),
    ("168.63.129.16/32", "metadata"),
    ("100.100.100.200/32", "metadata"),
    ("192.0.0.192/32", "metadata"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved and broadcast"),
    (str(POOL4), "another zone network"),
    # All of ::/96 is unspecified, loopback or IPv4-compatible.
    ("::/96", "unspecified, loopback or IPv4-compatible"),
    # These four carry an IPv4 address inside: what is closed above would be open through them.
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("2001::/32", "Teredo"),
    ("2002::/16", "6to4"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    ("fd00:ec2::254/128", "metadata"),
    ("fd20:ce::254/128", "metadata"),
    (str(POOL6), "another zone network"),
)
_CLOSED = tuple((ip_network(text), reason) for text, reason in CLOSED)


class Rule(NamedTuple):
    """Addresses and ports, and whether a zone may reach them. ICMP has no ports: a rule with some is not about it."""

    allow: bool
    network: Network
    first_port: int = 0
    last_port: int = 65535

    def matches(self, destination: Address, port: int) -> bool:
        """Is this rule about that?"""
        return (
            destination.version == self.network.version
            and destination in self.network
            and self.first_port <= port <= self.last_port
        )


def parse_rule(text: str) -> Rule:
    """A rule as people write it: `allow|deny CIDR [PORT[-PORT]]`. Raises ValueError with a sentence."""
    words = text.split()
    if not 2 <= len(words) <= 3 or words[0] not in ("allow", "deny"):
        raise ValueError(f"egress rule {text!r}: expected `allow|deny CIDR [PORT[-PORT]]`")
    allow, network = words[0] == "allow", ip_network(words[1])
    if len(words) == 2:
        return Rule(allow, network)
    first, _, last = words[2].partition("-")
    ports = (int(first), int(last or first))
    if not 0 < ports[0] <= ports[1] <= 65535:
        raise ValueError(f"egress rule {text!r}: expected ports from 1 to 65535")
    return Rule(allow, network, *ports)


class Verdict(NamedTuple):
    """May it, and if not, why."""

    allowed: bool
    reason: str


@lru_cache(maxsize=1024)  # a zone talks to few addresses, and to each often
def _closed(destination: Address) -> str:
    """Why an address is closed to every zone, "" if it is not."""
    for network, reason in _CLOSED:
        if destination.version == network.version and destination in network:
            return reason
    return ""


def decide(
    destination: Address,
    *,
    route: str | None,
    port: int = 0,
    deny: Sequence[Network] = (),
    rules: Sequence[Rule] = (),
) -> Verdict:
    """May a zone reach `destination`?

    route:   what the host's routing says of it ("unicast", "local", "broadcast", "anycast", ...), None when it has
             no route. Only this knows every address of the host, also one given a moment ago.
    port:    of TCP or UDP; 0 for ICMP.
    deny:    further closed networks of this host, such as the developer's machine behind the lab.
    rules:   the zone's own; the first that matches decides, and none opens what is closed otherwise.
    Effects: none.
    """
    if reason := _closed(destination):
        return Verdict(False, reason)
    for network in deny:
        if destination.version == network.version and destination in network:
            return Verdict(False, "denied by configuration")
    if route not in (None, "unicast"):
        return Verdict(False, f"{route} address of this host")
    for rule in rules:
        if rule.matches(destination, port):
            return Verdict(rule.allow, "" if rule.allow else "denied by a rule")
    return Verdict(True, "")
