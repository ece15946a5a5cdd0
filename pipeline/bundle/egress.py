"""Egress rules as people write them: what a zone may reach. Whether it may is decided in runtime/net/policy.py.

Imports the standard library alone: the process of a network's engine reads rules, too.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network

FORM = "`allow|deny ADDRESS|CIDR|any [PORT[-PORT][/PROTOCOL] | PROTOCOL]`"
ANY = "any"
TCP, UDP, ICMP = PROTOCOLS = ("tcp", "udp", "icmp")
MOST_RULES, MOST_CHARACTERS = 256, 100  # all of them go to an engine in one packet of its control socket
_LAST_PORT = 65535


class BadRule(ValueError):
    """A text that is no egress rule; `expected` says what would be one."""

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(f"egress rule {text!r}: expected {expected}")
        self.expected = expected


class Rule(NamedTuple):
    """Addresses and ports, and whether a zone may reach them. ICMP has no ports: a rule with some is not about it.

    network:   None for every address of both families.
    protocol:  one of PROTOCOLS, "icmp" for ICMPv6 as well; "" for all of them.
    """

    allow: bool
    network: Network | None
    first_port: int = 0
    last_port: int = _LAST_PORT
    protocol: str = ""


def parse_rule(text: str) -> Rule:
    """The rule a text stands for. Raises BadRule."""
    words = text.split()
    if not 2 <= len(words) <= 3 or words[0] not in ("allow", "deny") or len(text) > MOST_CHARACTERS:
        raise BadRule(text, FORM)
    allow = words[0] == "allow"
    network = None if words[1] == ANY else _network(text, words[1])
    if len(words) == 2:
        return Rule(allow, network)
    if words[2] in PROTOCOLS:
        return Rule(allow, network, protocol=words[2])
    ports, slash, protocol = words[2].partition("/")
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", ports)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last <= _LAST_PORT or (slash and protocol not in (TCP, UDP)):
        expected = "a port from 1 to 65535, or two with a hyphen, the lower one first; /tcp or /udp behind it"
        raise BadRule(text, f"{expected}; or tcp, udp, icmp")
    return Rule(allow, network, first, last, protocol)


def _network(text: str, word: str) -> Network:
    try:
        network = ip_network(word)
    except ValueError:
        network = None
    if network is None or "%" in word:
        raise BadRule(text, f"{ANY}, an address, or a network without bits behind its prefix, such as 10.0.0.0/8")
    return network
