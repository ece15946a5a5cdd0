"""Egress rules as people write them: what a zone may reach. Whether it may is decided in runtime/net/policy.py.

Imports the standard library alone: the process of a network's engine reads rules, too.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network

FORM = "`allow|deny ADDRESS|CIDR|any [PORT[-PORT]]`"
ANY = "any"
MOST_RULES, MOST_CHARACTERS = 256, 100  # all of them go to an engine in one packet of its control socket
_LAST_PORT = 65535


class BadRule(ValueError):
    """A text that is no egress rule; `expected` says what would be one."""

    def __init__(self, text: str, expected: str) -> None:
        super().__init__(f"egress rule {text!r}: expected {expected}")
        self.expected = expected


class Rule(NamedTuple):
    """Addresses and ports, and whether a zone may reach them. ICMP has no ports: a rule with some is not about it.

    network:  None for every address of both families.
    """

    allow: bool
    network: Network | None
    first_port: int = 0
    last_port: int = _LAST_PORT


def parse_rule(text: str) -> Rule:
    """The rule a text stands for. Raises BadRule."""
    words = text.split()
    if not 2 <= len(words) <= 3 or words[0] not in ("allow", "deny") or len(text) > MOST_CHARACTERS:
        raise BadRule(text, FORM)
    allow = words[0] == "allow"
    network = None if words[1] == ANY else _network(text, words[1])
    if len(words) == 2:
        return Rule(allow, network)
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", words[2])
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last <= _LAST_PORT:
        raise BadRule(text, "a port from 1 to 65535, or two with a hyphen, the lower one first")
    return Rule(allow, network, first, last)


def _network(text: str, word: str) -> Network:
    try:
        network = ip_network(word)
    except ValueError:
        network = None
    if network is None or "%" in word:
        raise BadRule(text, f"{ANY}, an address, or a network without bits behind its prefix, such as 10.0.0.0/8")
    return network
