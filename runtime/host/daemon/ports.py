"""The ports a zone is published on: held by zoned while the zone may come again, so that nobody takes them meanwhile.

The engine of a run gets a copy of each listener. A connection, or a datagram, that comes between two runs waits in the
listener's queue for the next engine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import socket
from collections.abc import Iterable, Sequence

from pipeline.bundle.model import Port
from pipeline.bundle.ports import PROTOCOLS, overlap
from runtime.host.check.model import HostPort
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.model import PortRule
from runtime.net.engine.model import MAX_PUBLISHED
from runtime.net.errors import PortTaken
from runtime.net.published import Published, key_of, listen_on, protocol_of


def check_rules(rules: Sequence[PortRule], subject: str, *, before: int = 0) -> None:
    """Everything about rules that can be refused without looking at this host. Raises BadRequest.

    before:  how many ports the zone has already.
    """
    for rule in rules:
        if not 0 < rule.zone_port < 65536 or not 0 <= rule.port < 65536 or rule.protocol not in PROTOCOLS:
            got = f"{rule.address}:{rule.port} to {rule.zone_port}/{rule.protocol}"
            raise BadRequest(f"{subject}, port", expected="tcp or udp ports up to 65535", got=got)
        try:
            ipaddress.ip_address(rule.address)
        except ValueError:
            got = repr(rule.address[:80])
            raise BadRequest(f"{subject}, port", expected="an IPv4 or IPv6 address", got=got) from None
    if before + len(rules) > MAX_PUBLISHED:
        got = str(before + len(rules))
        raise BadRequest(f"{subject}, ports", expected=f"at most {MAX_PUBLISHED} ports", got=got)


def refuse_taken(zone: str, rules: Iterable[PortRule], others: Iterable[tuple[str, Iterable[PortRule]]]) -> None:
    """Raise PortTaken for a port that a zone of this host has. others: names of zones, and the ports they are on."""
    taken = [(name, port_of(rule)) for name, has in others for rule in has]
    for rule in rules:
        for name, port in taken:
            if overlap(port_of(rule), port):
                key = key_of(rule.address, rule.port, rule.protocol)
                hint = "choose another one, or stop that zone"
                raise PortTaken(f"port {key} of zone {zone}", expected="it free", got=f"zone {name} has it", hint=hint)


def port_of(rule: PortRule) -> Port:
    """Its end on this host, as a network has it."""
    return Port(rule.address, rule.port, rule.zone_port, rule.protocol)


def takes_the_place_of(rule: PortRule, old: PortRule) -> bool:
    """Is a rule about the very port of another, here or on the user's machine?"""
    if rule.protocol != old.protocol:
        return False
    if rule.port:
        return (rule.address, rule.port) == (old.address, old.port)
    return rule.host_port != 0 and (rule.host_address, rule.host_port) == (old.host_address, old.host_port)


def ranges(rules: Iterable[PortRule]) -> list[list[PortRule]]:
    """Rules as people wrote them: those of a range, whose ports follow one another at both ends, are together."""
    found: list[list[PortRule]] = []
    for rule in rules:
        if found and _follows(rule, found[-1][-1]):
            found[-1].append(rule)
        else:
            found.append([rule])
    return found


def _follows(rule: PortRule, last: PortRule) -> bool:
    return (rule.protocol, rule.address, rule.zone_port, rule.host_address, rule.host_port) == (
        *(last.protocol, last.address, last.zone_port + 1),
        *(last.host_address, last.host_port + 1),
    )


class HeldPorts:
    """The listeners of one zone."""

    def __init__(self) -> None:
        self._held: dict[PortRule, socket.socket] = {}

    def take(self, zone: str, rules: Iterable[PortRule], old: Sequence[PortRule] = ()) -> tuple[PortRule, ...]:
        """Listen for all rules or none; rules that are held already stay so. The rules as bound.

        A rule that names no port of the user's machine has got the one here for it.
        old:     held ones that are to be released afterwards: where one is about the same port, it is listened on all
                 the while, and no connection is refused.
        Raises:  PortTaken, NetworkFault.
        """
        bound: list[PortRule] = []
        new: dict[PortRule, socket.socket] = {}
        try:
            for rule in rules:
                if rule in self._held:
                    bound.append(rule)
                    continue
                before = next((each for each in old if each in self._held and takes_the_place_of(rule, each)), None)
                if before is not None:
                    taken = dataclasses.replace(before, zone_port=rule.zone_port)
                    if taken != before:
                        new[taken] = self._held[before].dup()
                    bound.append(taken)
                    continue
                published = listen_on(zone, port_of(rule))
                taken = dataclasses.replace(rule, port=published.port)
                if not rule.host_port:
                    there = rule.host_address or rule.address
                    taken = dataclasses.replace(taken, host_address=there, host_port=published.port)
                new[taken] = published.listener
                bound.append(taken)
        except BaseException:
            for listener in new.values():
                listener.close()
            raise
        self._held |= new
        return tuple(bound)

    def take_back(self, rules: Iterable[PortRule], published: Iterable[Published]) -> None:
        """Hold what the network of a zone that is adopted has."""
        by_key = {item.key: item.listener for item in published}
        for rule in rules:
            listener = by_key.get(key_of(rule.address, rule.port, rule.protocol))
            if listener is not None and listener.fileno() >= 0:
                self._held[rule] = listener.dup()

    def held(self) -> list[HostPort]:
        """Where it listens. From any thread."""
        found = []
        for listener in list(self._held.values()):
            with contextlib.suppress(OSError):  # it is being closed
                address, port = listener.getsockname()[:2]
                found.append(HostPort(address, port, protocol_of(listener)))
        return found

    def listeners(self, rules: Sequence[PortRule]) -> list[tuple[Port, socket.socket]]:
        """Those of rules that are held, as a network uses them."""
        return [(port_of(rule), self._held[rule]) for rule in rules if rule in self._held]

    def release(self, rules: Iterable[PortRule] | None = None) -> None:
        """Listen no more for these, or for any."""
        for rule in list(self._held if rules is None else rules):
            with contextlib.suppress(KeyError):
                self._held.pop(rule).close()
