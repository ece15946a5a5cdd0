"""Ports as `-p` and a spec write them: which of the host lead to which of the zone."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from pipeline.bundle.errors import BadSpec
from pipeline.bundle.model import Port

FORM = "[[ADDRESS:][HOST_PORT]:]ZONE_PORT[/udp]"
LOOPBACK = "127.0.0.1"
PROTOCOLS = ("tcp", "udp")
MOST_PORTS = 200  # of a zone: what its network engine takes, runtime.net.engine.model.MAX_PUBLISHED

_ADDRESS = r"(?P<address>\[[^\[\]]+\]|[^:\[\]]+)"
_RANGE = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
_PROTOCOL = r"(?:/(?P<protocol>tcp|udp))?"
_RULE = re.compile(rf"(?:(?:{_ADDRESS}:|(?={_RANGE}:))(?P<host>{_RANGE})?:)?(?P<zone>{_RANGE}){_PROTOCOL}")
_HOST_END = re.compile(rf"(?:{_ADDRESS}:)?(?P<host>{_RANGE}){_PROTOCOL}")


def parse_ports(text: str, *, subject: str) -> tuple[Port, ...]:
    """Read a port rule: `8080:80`, `127.0.0.1:8000-8010:9000-9010`, `53:53/udp`.

    The address is 127.0.0.1 unless given, host_port 0 where the rule names none: one that is free is chosen.
    """
    match = _RULE.fullmatch(text)
    if match is None:
        raise BadSpec(subject, expected='a port rule such as "8080:80" or "5000-5010:53-63/udp"', got=repr(text))
    address, zone = _address_of(match, subject), _range(match["zone"], text, subject)
    host: Sequence[int] = _range(match["host"], text, subject) if match["host"] else [0] * len(zone)
    if len(host) != len(zone):
        hint = "one of the host's leads to one of the zone" if len(zone) == 1 else ""
        got = f"{len(host)} for {len(zone)} in {text!r}"
        raise BadSpec(subject, expected="as many ports of the host as of the zone", got=got, hint=hint)
    return tuple(Port(address, *pair, match["protocol"] or "tcp") for pair in zip(host, zone, strict=True))


def parse_host_ends(text: str, *, subject: str) -> tuple[Port, ...]:
    """Read where ports are published, `[ADDRESS:]HOST_PORT[/udp]`; zone_port is 0 in what comes."""
    match = _HOST_END.fullmatch(text)
    if match is None:
        raise BadSpec(subject, expected='a port of the host such as "8080" or "5000-5010/udp"', got=repr(text))
    address, protocol = _address_of(match, subject), match["protocol"] or "tcp"
    return tuple(Port(address, port, 0, protocol) for port in _range(match["host"], text, subject))


def check_ports(ports: Sequence[Port], *, subject: str) -> None:
    """Raise BadSpec where a zone has too many ports, or two of them would listen for the same."""
    if len(ports) > MOST_PORTS:
        raise BadSpec(subject, expected=f"at most {MOST_PORTS} ports", got=str(len(ports)))
    for index, port in enumerate(ports):
        for other in ports[:index]:
            if overlap(port, other):
                again = "twice" if port.host_address == other.host_address else f"beside {host_end(other)}"
                raise BadSpec(subject, expected="each host port once", got=f"{host_end(port)} {again}")


def overlap(one: Port, other: Port) -> bool:
    """Would both listen for the same? Ports of different protocols never do; 0 is a port that nobody has."""
    if (one.host_port, one.protocol) != (other.host_port, other.protocol) or not one.host_port:
        return False
    addresses = [ipaddress.ip_address(port.host_address) for port in (one, other)]
    if addresses[0].version != addresses[1].version:
        return False
    return addresses[0] == addresses[1] or any(address.is_unspecified for address in addresses)


def host_end(port: Port) -> str:
    """`127.0.0.1:8080`, `[::1]:53/udp`: as an error names it."""
    address = f"[{port.host_address}]" if ":" in port.host_address else port.host_address
    return f"{address}:{port.host_port}" + ("" if port.protocol == "tcp" else f"/{port.protocol}")


def _address_of(match: re.Match[str], subject: str) -> str:
    address = (match["address"] or LOOPBACK).strip("[]")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise BadSpec(subject, expected="an IPv4 or IPv6 address", got=repr(address)) from None
    return address


def _range(digits: str, text: str, subject: str) -> range:
    """`80`, or `8000-8010` with both ends."""
    first, _, last = digits.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found or found[0] < 1 or found[-1] > 65535:
        raise BadSpec(subject, expected="ports from 1 to 65535, the lower one first", got=repr(text))
    return found
