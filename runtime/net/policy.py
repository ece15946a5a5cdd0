"""What a zone may connect to: one pure function, asked for every connection before the outer connect.

Closed by default: this host itself, loopback, link-local, cloud metadata, multicast and every other zone network. It
judges addresses, never names, so what a name resolves to (DNS rebinding) does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Verdict(NamedTuple):
    """May it, and if not, why."""

    allowed: bool
    reason: str


def decide(destination: Address, *, route: str | None, deny: Sequence[Network] = ()) -> Verdict:
    """May a zone connect to `destination`?

    route:   what the host's routing says of it ("unicast", "local", "broadcast", "anycast", ...), None when it has
             no route. Only this knows every address of the host, also one given a moment ago.
    deny:    further closed networks of this host, such as the developer's machine behind the lab.
    Effects: none.
    """
    for network, reason in _CLOSED:
        if destination.version == network.version and destination in network:
            return Verdict(False, reason)
    for network in deny:
        if destination.version == network.version and destination in network:
            return Verdict(False, "denied by configuration")
    if route not in (None, "unicast"):
        return Verdict(False, f"{route} address of this host")
    return Verdict(True, "")
