"""What is inside a network's namespace depends on its engine: who makes it, and what of it is needed again later."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NoReturn, Protocol

from pipeline.bundle.egress import Rule
from pipeline.bundle.model import Port
from runtime.net import commands, furnish
from runtime.net import plan as nets
from runtime.net.addresses import ZoneAddresses
from runtime.net.engine.interface import Engine
from runtime.net.engine.proxy import ProxyEngine
from runtime.net.errors import NetworkFault
from runtime.net.pasta import plan as pasta
from runtime.net.pasta.engine import PastaEngine


class Layout(Protocol):
    """Functions that change something run in the namespace, and all raise NetworkFault.

    mapped:      the engine enters the user namespace that owns the network's.
    shareable:   several zones may be in it. has_sockets: a zone has some of its own in it.
    ports_change: what is published may change while the zone runs.
    probes:      of each family the address from which the namespace asks whether a zone's port answers; "" for any.
    rto_min_ms:  the least that a zone's TCP is to wait before it sends again; 0 for what its kernel has.
    """

    mapped: bool
    shareable: bool
    has_sockets: bool
    ports_change: bool
    probes: tuple[str, str]
    rto_min_ms: int

    def lay_out(self, whose: str, addresses: ZoneAddresses, mtu: int) -> None:
        """See furnish."""

    def renew(self, whose: str, addresses: ZoneAddresses) -> None:
        """See furnish."""

    def open_sockets(self, zone: str, addresses: ZoneAddresses) -> list[socket.socket]:
        """See furnish."""

    def open_echoes(self, zone: str, addresses: ZoneAddresses) -> list[socket.socket]:
        """See furnish; in the host's namespace."""

    def load_rules(self, whose: str, addresses: ZoneAddresses, places: Sequence[nets.Place]) -> None:
        """See furnish."""

    def check_egress(self, rules: Sequence[Rule], subject: str) -> None:
        """Are these rules such as the engine can keep?"""

    def check_ports(self, ports: Sequence[Port], subject: str) -> None:
        """Can it publish all of these?"""

    def name_servers(self, addresses: ZoneAddresses) -> tuple[str, ...]:
        """Where a zone that names none of its own asks."""


class SpliceLayout:
    """See plan.py, rules.py."""

    mapped, shareable, has_sockets, ports_change, probes, rto_min_ms = False, True, True, True, ("", ""), 0
    lay_out = staticmethod(furnish.lay_out)
    renew = staticmethod(furnish.renew)
    open_sockets = staticmethod(furnish.open_sockets)
    open_echoes = staticmethod(furnish.open_echoes)
    load_rules = staticmethod(furnish.load_rules)

    def check_egress(self, rules: Sequence[Rule], subject: str) -> None:
        """Any."""

    def check_ports(self, ports: Sequence[Port], subject: str) -> None:
        """Any."""

    def name_servers(self, addresses: ZoneAddresses) -> tuple[str, ...]:
        """One, whichever families the host's have."""
        return (addresses.gateway4,)


class PastaLayout:
    """See pasta/plan.py. The rules are the keeper's, which knows the host's addresses also while there is no zoned."""

    mapped, shareable, has_sockets, ports_change = True, False, False, False
    probes = (pasta.PROBE4, pasta.PROBE6)
    # pasta has no SACK: what it drops when the host's send buffer is full stands still for that long each time.
    rto_min_ms = 5
    check_egress = staticmethod(pasta.check_egress)
    check_ports = staticmethod(pasta.check_ports)

    def name_servers(self, addresses: ZoneAddresses) -> tuple[str, ...]:
        """Each leads to one of the host's of its own family."""
        return (addresses.gateway4, addresses.gateway6)

    def lay_out(self, whose: str, addresses: ZoneAddresses, mtu: int) -> None:
        """Links, routes and settings; and rules that let nothing in."""
        subject = f"network of {whose}"
        furnish.sysctl([nets.IPV6_ON, *nets.early_sysctls(), *pasta.sysctls()], subject)
        furnish.sysctl(furnish.known(nets.optional_sysctls()), subject)
        lines = [*pasta.ip_lines(mtu), *pasta.route_lines(addresses)]
        commands.feed(["ip", "-batch", "-"], "\n".join(lines) + "\n", subject=subject)
        furnish.sysctl(nets.late_sysctls(), subject)
        commands.feed(["nft", "-f", "-"], pasta.ruleset(addresses, None), subject=subject)

    def renew(self, whose: str, addresses: ZoneAddresses) -> None:
        """Nothing of it can be lost."""

    def open_sockets(self, zone: str, addresses: ZoneAddresses) -> list[socket.socket]:
        """None: pasta takes the zone's packets."""
        return []

    def open_echoes(self, zone: str, addresses: ZoneAddresses) -> list[socket.socket]:
        """None: pings are pasta's own."""
        return []

    def load_rules(self, whose: str, addresses: ZoneAddresses, places: Sequence[nets.Place]) -> None:
        """The keeper's, when the zone is made known to it."""


_LAYOUTS: dict[str, Layout] = {ProxyEngine.name: SpliceLayout(), PastaEngine.name: PastaLayout()}
_ENGINES: dict[str, type[ProxyEngine] | type[PastaEngine]] = {item.name: item for item in (ProxyEngine, PastaEngine)}


def layout_of(engine: str) -> Layout:
    """That of an engine; "" is splice. Raises NetworkFault."""
    engine = engine or ProxyEngine.name
    return _LAYOUTS[engine] if engine in _LAYOUTS else _unknown(engine)


def engine_named(name: str) -> Engine:
    """The engine; "" is splice. Raises NetworkFault."""
    name = name or ProxyEngine.name
    return _ENGINES[name]() if name in _ENGINES else _unknown(name)


def _unknown(name: str) -> NoReturn:
    raise NetworkFault("network engine", expected=" or ".join(_LAYOUTS), got=repr(name)[:80])
