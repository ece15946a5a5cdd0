"""All networks of this host, described for people: addresses, engine, ports, counters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_interface

from runtime.errors import RuntimeFault
from runtime.net.network import ZoneNetwork


@dataclass(frozen=True)
class NetworkInfo:
    """One network.

    ports:     (address, port, zone_port, protocol) of what is published.
    counters:  see engine.model.COUNTERS; {} where the engine does not answer, and `problem` says why.
    """

    name: str
    netns: str
    ipv4: str
    ipv6: str
    gateway4: str
    gateway6: str
    mtu: int
    vif: str
    engine_pid: int
    restarts: int
    ports: tuple[tuple[str, int, int, str], ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    problem: str = ""


def networks(of: Iterable[ZoneNetwork]) -> tuple[NetworkInfo, ...]:
    """Describe networks, by name; one whose engine is dead is described all the same."""
    return tuple(_describe(network) for network in sorted(of, key=lambda network: network.name))


def _describe(network: ZoneNetwork) -> NetworkInfo:
    addresses, engine = network.addresses, network.engine
    counters, problem = {}, ""
    try:
        counters = network.counters()
    except RuntimeFault as fault:
        problem = str(fault)
    return NetworkInfo(
        name=network.name,
        netns=network.netns,
        ipv4=str(ip_interface(f"{addresses.zone4}/{addresses.prefix4}").network),
        ipv6=str(ip_interface(f"{addresses.zone6}/{addresses.prefix6}").network),
        gateway4=addresses.gateway4,
        gateway6=addresses.gateway6,
        mtu=network.mtu,
        vif=network.vif,
        engine_pid=engine.pid if engine is not None else 0,
        restarts=network.restarts,
        ports=tuple((item.address, item.port, item.zone_port, item.protocol) for item in network.published()),
        counters=counters,
        problem=problem,
    )
