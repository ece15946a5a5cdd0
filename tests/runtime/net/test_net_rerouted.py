"""The host's addresses and routes change under what its zones have begun."""

from __future__ import annotations

import errno
import select
import socket

import pytest
from support.networld import BLACK_HOLE, BLACK_HOLE6, HOST4, HOST6, OUTSIDE4, OUTSIDE6, World

from runtime.net.engine.feedback import queue_errors
from runtime.net.engine.model import Limits

pytestmark = pytest.mark.root

LATER4, LATER6 = "203.0.113.77", "2001:db8:1::77"
OTHER4, OTHER6 = "203.0.113.5", "2001:db8:1::5"


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def own(address: str) -> str:
    return f"{address}/{'128' if ':' in address else '32'} dev lo{' nodad' if ':' in address else ''}"


def datagrams(world: World, namespace: str, address: str, port: int = 0) -> socket.socket:
    made = world.of(namespace, lambda: socket.socket(family_of(address), socket.SOCK_DGRAM))
    world.stack.callback(made.close)
    made.settimeout(30)
    made.bind((address, port))
    return made


def asking(world: World, server: socket.socket) -> socket.socket:
    """A zone's end of a flow that has been answered."""
    client = world.in_zone(lambda: socket.socket(server.family, socket.SOCK_DGRAM))
    world.stack.callback(client.close)
    client.settimeout(30)
    client.connect(server.getsockname()[:2])
    assert answered(client, server)
    return client


def answered(client: socket.socket, server: socket.socket, timeout_s: float = 30.0) -> bool:
    """Does a datagram of the zone's get there, and the answer back?"""
    client.settimeout(timeout_s)
    server.settimeout(timeout_s)
    try:
        client.send(b"ask")
        data, origin = server.recvfrom(9)
        server.sendto(data, origin)
        return client.recv(9) == b"ask"
    except OSError:
        return False


@pytest.mark.parametrize("hole", [BLACK_HOLE, BLACK_HOLE6])
def test_connect_under_way_does_not_come_to_the_host_that_was_given_the_address_since(world: World, hole: str) -> None:
    """The host's kernel sends the SYN again by itself, and would then answer it itself."""
    port = world.serve(world.host, "::" if ":" in hole else "0.0.0.0", 0, lambda connection: connection.sendall(b"hi"))
    world.network = world.new_network(limits=Limits(connect_timeout_s=30))
    network = world.up()
    world.meet()

    def begin() -> socket.socket:
        made = socket.socket(family_of(hole))
        made.setblocking(False)
        made.connect_ex((hole, port))
        return made

    with world.in_zone(begin) as connection:
        world.wait_until(lambda: network.counters()["pending"] == 1)
        world.ip(world.host, f"address add {own(hole)}")
        select.select([], [connection], [], 20)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert (network.counters()["accepted"], network.counters()["denied"]) == (0, 1)


@pytest.mark.parametrize("address", [LATER4, LATER6])
def test_flow_does_not_come_to_the_host_that_was_given_the_address_since(world: World, address: str) -> None:
    world.ip(world.outside, f"address add {own(address)}")
    world.ip(world.host, f"route add {address} via {OUTSIDE6 if ':' in address else OUTSIDE4}")
    server = datagrams(world, world.outside, address)
    network = world.up()
    world.meet()
    client = asking(world, server)
    world.ip(world.host, f"address add {own(address)}", f"route del {address} dev up0")
    hosts = datagrams(world, world.host, address, server.getsockname()[1])
    world.wait_until(lambda: network.counters()["udp_active"] == 0)
    client.send(b"anybody?")
    hosts.settimeout(0.5)
    with pytest.raises(TimeoutError):
        hosts.recv(9)
    with pytest.raises(OSError):
        client.recv(9)
    assert network.counters()["denied"] == 1


@pytest.mark.parametrize(("old", "new", "far"), [(HOST4, OTHER4, OUTSIDE4), (HOST6, OTHER6, OUTSIDE6)])
def test_flow_goes_on_from_the_hosts_next_address(world: World, old: str, new: str, far: str) -> None:
    """As after DHCP, or in another network: the zone's port stays, and it need not know."""
    server = datagrams(world, world.outside, far)
    world.up()
    world.meet()
    client = asking(world, server)
    bits = 64 if ":" in old else 24
    world.ip(world.host, "address flush dev up0 scope global")
    world.ip(world.host, f"address add {new}/{bits} dev up0{' nodad' if ':' in new else ''}")
    world.wait_until(lambda: answered(client, server, 0.3))  # some are lost


@pytest.mark.parametrize("far", [OUTSIDE4, OUTSIDE6])
def test_flow_whose_route_is_gone_is_told_so(world: World, far: str) -> None:
    server = datagrams(world, world.outside, far)
    network = world.up()
    world.meet()
    client = asking(world, server)
    world.shell(world.host, "ip link set up0 down")
    world.wait_until(lambda: network.counters()["udp_active"] == 0)
    queue_errors(client, client.family, wanted=True)
    client.send(b"anybody?")
    client.settimeout(30)
    with pytest.raises(OSError) as caught:
        client.recv(9)
    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize("far", [OUTSIDE4, OUTSIDE6])
def test_flow_that_the_hosts_own_firewall_stops_is_told_so(world: World, far: str) -> None:
    server = datagrams(world, world.outside, far)
    world.up()
    world.meet()
    client = asking(world, server)
    world.shell(
        world.host, "nft 'table inet t { chain c { type filter hook output priority 0; meta l4proto udp drop; }; }'"
    )
    client.send(b"anybody?")
    client.settimeout(30)
    with pytest.raises(OSError) as caught:
        client.recv(9)
    assert caught.value.errno in (errno.EHOSTUNREACH, errno.EACCES)


@pytest.mark.parametrize("far", [OUTSIDE4, OUTSIDE6])
def test_change_that_concerns_no_flow_ends_none(world: World, far: str) -> None:
    server = datagrams(world, world.outside, far)
    network = world.up()
    world.meet()
    client = asking(world, server)
    world.ip(world.host, f"address add {own(LATER4)}", f"address add {own(LATER6)}", "route add 192.0.2.0/24 dev up0")
    for _ in range(3):
        assert answered(client, server)
    assert network.counters()["udp_flows"] == 1
