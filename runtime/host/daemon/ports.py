"""The ports a zone is published on: held by zoned while the zone may come again, so that nobody takes them meanwhile.

The engine of a run gets a copy of each listener. A connection that comes between two runs waits in the listener's
queue for the next engine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterable, Sequence

from pipeline.bundle.model import Port
from runtime.host.daemon.model import PortRule
from runtime.net.published import Published, key_of, listen_on


class HeldPorts:
    """The listeners of one zone."""

    def __init__(self) -> None:
        self._held: dict[PortRule, socket.socket] = {}

    def take(self, zone: str, rules: Iterable[PortRule]) -> tuple[PortRule, ...]:
        """Listen for all rules or none; rules that are held already stay so. The rules as bound.

        Raises:  PortTaken, NetworkFault.
        """
        bound: list[PortRule] = []
        new: dict[PortRule, socket.socket] = {}
        try:
            for rule in rules:
                if rule in self._held:
                    bound.append(rule)
                    continue
                published = listen_on(zone, Port(rule.address, rule.port, rule.zone_port, rule.protocol))
                taken = dataclasses.replace(rule, port=published.port)
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

    def listeners(self, rules: Sequence[PortRule]) -> list[tuple[Port, socket.socket]]:
        """Those of rules that are held, as a network uses them."""
        return [
            (Port(rule.address, rule.port, rule.zone_port, rule.protocol), self._held[rule])
            for rule in rules
            if rule in self._held
        ]

    def release(self, rules: Iterable[PortRule] | None = None) -> None:
        """Listen no more for these, or for any."""
        for rule in list(self._held if rules is None else rules):
            with contextlib.suppress(KeyError):
                self._held.pop(rule).close()
