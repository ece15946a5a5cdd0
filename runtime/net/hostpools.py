"""Which address pools this host gives its networks, by /etc/zonewright/network.toml, and whether they are free.

    pool4 = "172.30.0.0/16"
    pool6 = "fd00:1234:5678::/48"

Either may be left out. Networks keep the pools that they were made in: others are taken only when none is there.
"""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple

from runtime.net.errors import BadPools
from runtime.net.pool import DEFAULT, Pools, parse_pools

FILE = Path("/etc/zonewright/network.toml")
_MOST_BYTES = 65536
_KEYS = {"pool4": str(DEFAULT.v4), "pool6": str(DEFAULT.v6)}


class Route(NamedTuple):
    """A network that this host has a way to other than by default, and how."""

    network: IPv4Network | IPv6Network
    device: str


def read_pools(file: Path = FILE) -> Pools:
    """The pools that the file names, the usual ones where it or a key is not there. Raises BadPools."""
    try:
        with file.open("rb") as opened:
            document = tomllib.loads(opened.read(_MOST_BYTES).decode())
    except FileNotFoundError:
        return DEFAULT
    except (OSError, ValueError) as error:
        raise BadPools(str(file), expected="a TOML file with pool4, pool6", got=str(error)) from error
    if unknown := sorted(document.keys() - _KEYS.keys()):
        raise BadPools(str(file), expected="pool4, pool6", got=", ".join(unknown))
    try:
        return parse_pools(*(str(document.get(key, usual)) for key, usual in _KEYS.items()))
    except ValueError as error:
        expected, _, got = str(error).removeprefix("expected ").rpartition(", got ")
        raise BadPools(str(file), expected=expected, got=got) from None


def settle(chosen: Pools, note: Path, *, networks: bool) -> None:
    """Note the pools that networks are made in. networks: there are some, of those noted before.

    Raises:  BadPools when those are others.
    """
    before = note.read_text().strip() if note.exists() else str(DEFAULT)
    if networks and before != str(chosen):
        hint = f"remove all zones and networks first, or change {FILE} back"
        raise BadPools("address pools", expected=f"{before}, of which networks are there", got=str(chosen), hint=hint)
    # At once: whoever is killed in the midst of it would leave the next start pools of which no network is.
    made = note.with_name(f".{note.name}.new")
    made.write_text(f"{chosen}\n")
    made.replace(note)


def clashes(chosen: Pools, routes: Iterable[Route]) -> Iterator[tuple[str, str]]:
    """(pool, what of this host's is in it). Effects: none."""
    for route in routes:
        pool = chosen.v4 if route.network.version == 4 else chosen.v6
        if route.network.overlaps(pool):
            yield str(pool), f"{route.network} on {route.device}"


def read_routes(proc: Path = Path("/proc/net")) -> tuple[Route, ...]:
    """The host's own addresses and what it has routes to, but for default routes and loopback."""
    text4, text6 = (_text(proc / name) for name in ("route", "ipv6_route"))
    found = (*_routes4(text4), *_addresses4(_text(proc / "fib_trie")), *_routes6(text6))
    return tuple(sorted({route for route in found if route.device != "lo"}, key=lambda route: str(route.network)))


def _routes4(text: str) -> Iterator[Route]:
    """Source: net/ipv4/fib_trie.c, fib_route_seq_show; words as this machine keeps them."""
    for line in text.splitlines()[1:]:
        device, destination, _, _, _, _, _, mask, *_ = line.split()
        address, bits = (socket.ntohl(int(word, 16)) for word in (destination, mask))
        if bits:
            yield Route(IPv4Network((address, bits.bit_count())), device)


def _addresses4(text: str) -> Iterator[Route]:
    """Source: net/ipv4/fib_trie.c, fib_trie_seq_show."""
    for found in re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", text):
        if not IPv4Address(found).is_loopback:
            yield Route(IPv4Network(found), "this host")


def _routes6(text: str) -> Iterator[Route]:
    """Source: net/ipv6/route.c, rt6_info_route; the first two words are a destination."""
    for line in text.splitlines():
        destination, length, *_, device = line.split()
        network = IPv6Network((int(destination, 16), int(length, 16)))
        if network.prefixlen and not network.is_link_local and not network.is_multicast:
            yield Route(network, "this host" if device == "lo" and not _loopback(network) else device)


def _loopback(network: IPv6Network) -> bool:
    return network.network_address.is_loopback


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # without IPv6 there is no such file
        return ""
