"""All zones together leave half of the host's ports to its own programs."""

from __future__ import annotations

import contextlib
import socket

from support.networld import OUTSIDE4, World

from runtime.net.engine.hostports import KEPT, HostPorts
from runtime.net.engine.model import Limits


def narrow(world: World, count: int) -> None:
    """So many ports to choose from on the host."""
    world.shell(world.host, f"echo 40000 {40000 + count - 1} > /proc/sys/net/ipv4/ip_local_port_range")


def send_from_many(world: World, name: str, count: int) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as many:
            for number in range(count):
                many.sendto(b"f", (OUTSIDE4, 10000 + number))

    world.of(name, send)


def test_ports_are_scarce_when_half_of_them_are_taken(world: World) -> None:
    narrow(world, 100)
    with contextlib.ExitStack() as stack:
        ports = world.on_host(HostPorts)
        stack.callback(ports.close)
        assert (ports.used, ports.half) == (0, 50)
        for number in range(50):
            assert not ports.scarce(KEPT + number)
            family = socket.AF_INET6 if number % 2 else socket.AF_INET
            taken = stack.enter_context(world.on_host(lambda of=family: socket.socket(of, socket.SOCK_DGRAM)))
            taken.bind(("", 0))
        assert ports.scarce(KEPT)
        assert not ports.scarce(KEPT - 1), "a few each zone may always have"


def test_zones_that_flood_leave_the_host_half_of_its_ports(world: World) -> None:
    narrow(world, 120)
    world.network = world.new_network(limits=Limits())
    first = world.up()
    second, name = world.neighbour(limits=Limits())
    world.meet()
    send_from_many(world, world.zone, 200)
    world.wait_until(lambda: first.counters()["udp_flows"] == 200)
    send_from_many(world, name, 200)
    world.wait_until(lambda: second.counters()["udp_flows"] == 200)
    held = [network.counters()["udp_active"] for network in (first, second)]
    assert held == [60, KEPT]
    with contextlib.ExitStack() as stack:
        # All that is left is the host's own.
        for _ in range(120 - sum(held)):
            own = stack.enter_context(world.on_host(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            own.bind(("", 0))
    assert first.counters()["limited"] == 140
    assert first.counters()["faults"] == second.counters()["faults"] == 0
