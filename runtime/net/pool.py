"""The address pools of all zone networks; apart from addresses.py for the engine, whose imports are to be few.

A host has one pair. A process is told of another one than the usual before it does anything: zoned by hostpools.py, an
engine by its config.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

PREFIX4 = 24  # of one network
PREFIX6 = 64
MOST_NETWORKS = 256  # the index is a byte of the zones' MACs, and added to a first uid


class Pools(NamedTuple):
    """A /24 of the one and a /64 of the other are a network's."""

    v4: IPv4Network
    v6: IPv6Network

    @property
    def networks(self) -> int:
        """How many they have room for."""
        return min(1 << (PREFIX4 - self.v4.prefixlen), 1 << (PREFIX6 - self.v6.prefixlen), MOST_NETWORKS)

    def __str__(self) -> str:
        return f"{self.v4} {self.v6}"


# 5a 6f6e 6577 is "Zonew" in ASCII; unique local (RFC 4193).
DEFAULT = Pools(IPv4Network("10.75.0.0/16"), IPv6Network("fd5a:6f6e:6577::/48"))
_SPECIAL4 = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
_GLOBAL6, _LOCAL6 = IPv6Network("2000::/3"), IPv6Network("fc00::/7")
_used = DEFAULT


def parse_pools(text4: str, text6: str) -> Pools:
    """The pools of two texts. Raises ValueError, which says what was expected."""
    expected4 = "an IPv4 network with a prefix from /16 to /24, such as 10.75.0.0/16"
    try:
        v4 = IPv4Network(text4)
    except ValueError:
        raise ValueError(f"expected {expected4}, got {text4!r}") from None
    if not 16 <= v4.prefixlen <= PREFIX4 or any(v4.overlaps(special) for special in _SPECIAL4):
        raise ValueError(f"expected {expected4}, got {text4!r}")
    expected6 = "an IPv6 network with a prefix from /48 to /64, such as fd5a:6f6e:6577::/48"
    try:
        v6 = IPv6Network(text6)
    except ValueError:
        raise ValueError(f"expected {expected6}, got {text6!r}") from None
    if not 48 <= v6.prefixlen <= PREFIX6 or not (v6.subnet_of(_GLOBAL6) or v6.subnet_of(_LOCAL6)):
        raise ValueError(f"expected {expected6}, got {text6!r}")
    return Pools(v4, v6)


def pools() -> Pools:
    """This host's."""
    return _used


def use(chosen: Pools) -> None:
    """Have this process's networks be of these pools."""
    global _used
    _used = chosen
