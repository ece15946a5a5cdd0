"""Several zones in one network that they share, in a World."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from runtime.net import netns
from runtime.net.addresses import ZoneAddresses, plan_addresses
from runtime.net.engine.model import Limits
from runtime.net.network import ZoneNetwork, teardown
from runtime.net.segment import Segment
from support.networld import World, wait_for_links

INDEX = 9


class Neighbour:
    """A zone of a shared network: its namespace, its addresses, its place; `records` is the ledger of its run."""

    def __init__(self, shared: SharedNetwork, name: str, host: int, options: dict[str, Any]) -> None:
        self.name, self.addresses = name, plan_addresses(INDEX, host=host)
        self.namespace = f"zwt{os.getpid()}-{name}"
        self.vif = f"vif{100 + host}.0"
        self.records: list[dict[str, Any]] = []
        self.network = ZoneNetwork(
            name,
            self.addresses,
            1500,
            lambda kind, **fields: self.records.append({"kind": kind, **fields}),
            segment=shared.segment,
            **options,
        )

    def inside(self, work: Any) -> Any:
        return netns.inside(self.namespace, work)


class SharedNetwork:
    """A shared network, made on the world's host; `records` is its ledger."""

    def __init__(self, world: World, **options: Any) -> None:
        self.world = world
        self.records: list[dict[str, Any]] = []
        self.options = {"limits": Limits(connect_timeout_s=1.5, dns_try_s=0.3, connections=64), **options}
        self.segment = self.new_segment()
        world.on_host(self.segment.create)
        world.stack.callback(lambda: teardown(self.records))
        world.stack.callback(lambda: self.segment.destroy())

    def new_segment(self) -> Segment:
        """An object for the network, as a zoned has it."""
        return Segment(
            f"net{os.getpid()}",
            plan_addresses(INDEX),
            1500,
            lambda kind, **fields: self.records.append({"kind": kind, **fields}),
            shared=True,
            run_directory=self.world.directory / "run",
            resolv_conf=self.world.resolv_conf,
            **self.options,
        )

    def zone(self, name: str, host: int, **options: Any) -> Neighbour:
        """A zone that has joined and is served."""
        made = Neighbour(self, name, host, options)
        self.plug(made)
        self.world.stack.callback(lambda: made.network.destroy())
        self.world.on_host(made.network.create)
        self.world.on_host(lambda: made.network.attach(made.vif))
        self.world.on_host(made.network.serve)
        wait_for_links(made.namespace, "eth0")
        return made

    def plug(self, zone: Neighbour) -> None:
        """What Xen and the zone's init do."""
        world, addresses = self.world, zone.addresses
        netns.create(zone.namespace)
        world.stack.callback(netns.delete, zone.namespace)
        world.ip(world.host, f"link add {zone.vif} type veth peer name eth0 netns {zone.namespace}")
        world.ip(zone.namespace, "link set lo up", *address_lines(addresses))


def address_lines(addresses: ZoneAddresses) -> list[str]:
    """A zone's interface, as its init sets it up."""
    return [
        f"link set eth0 address {addresses.zone_mac}",
        f"address add {addresses.zone4}/{addresses.prefix4} dev eth0",
        f"address add {addresses.zone6}/{addresses.prefix6} dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {addresses.gateway4}",
        f"route add ::/0 via {addresses.gateway6}",
    ]


def abandon(*networks: ZoneNetwork) -> None:
    """What the kernel does when zoned is killed: its descriptors go, no more."""
    for network in networks:
        for listener in (*network._inside, *(item.listener for item in network.published())):
            listener.close()
        network.segment.zones.clear()


def again(shared: SharedNetwork, zone: Neighbour) -> ZoneNetwork:
    """The network of a zone as the next zoned makes it."""
    made = Neighbour(shared, zone.name, zone.addresses.host, {})
    zone.network, made.network._record = made.network, zone.network._record
    return zone.network


def reaches(one: Neighbour, address: str, port: int = 80, *, timeout_s: float = 30.0) -> bytes | None:
    """What a server at an address says to a zone; None where the zone does not reach it."""
    try:
        with one.inside(lambda: socket.create_connection((address, port), timeout_s)) as connection:
            return bytes(connection.recv(100))
    except OSError:
        return None


def pid_of(shared: SharedNetwork) -> int:
    """The engine's process."""
    assert shared.segment.engine is not None
    return shared.segment.engine.pid


def status_of(pid: int) -> dict[str, str]:
    """A process's fields in /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}
