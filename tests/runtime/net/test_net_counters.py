"""What is counted for a zone is what has gone on, and no more."""

from __future__ import annotations

import contextlib
import socket

import pytest
from support.networld import HOST4, OUTSIDE4, OUTSIDE6, World

from pipeline.bundle.model import Port
from runtime.net.network import ZoneNetwork

pytestmark = pytest.mark.root

BOTH = pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
SIZE, COUNT = 1000, 20


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(world: World, namespace: str, address: str) -> socket.socket:
    """A UDP socket of a namespace, bound to an address."""
    made = world.of(namespace, lambda: socket.socket(family_of(address), socket.SOCK_DGRAM))
    world.stack.callback(made.close)
    made.settimeout(30)
    made.bind((address, 0))
    return made


def keeps_from_sending(world: World, port: int) -> None:
    """The host's own firewall lets nothing out to a UDP port."""
    world.shell(
        world.host,
        f"nft 'table inet t {{ chain c {{ type filter hook output priority 0; udp dport {port} drop; }}; }}'",
    )


def send(client: socket.socket) -> None:
    """One datagram. An error about an earlier one is told in its place, and those of several may be on the way."""
    while True:
        with contextlib.suppress(OSError):
            client.send(bytes(SIZE))
            return


def counted(world: World, name: str, value: int) -> dict[str, int]:
    """All counters, once one has this value."""
    world.wait_until(lambda: world.network.counters()[name] >= value)
    return world.network.counters()


@BOTH
def test_datagrams_that_do_not_leave_the_host_are_lost_and_not_sent(world: World, address: str) -> None:
    network = world.up()
    world.meet()
    server = udp(world, world.outside, address)
    client = udp(world, world.zone, world.addresses.zone6 if ":" in address else world.addresses.zone4)
    client.connect(server.getsockname()[:2])
    client.send(b"hello")
    assert server.recv(9) == b"hello"
    keeps_from_sending(world, server.getsockname()[1])
    for _ in range(COUNT):
        send(client)
    counters = counted(world, "lost", COUNT)
    (row,) = network.flows()
    assert (counters["bytes_up"], row.bytes_up, counters["lost"]) == (5, 5, COUNT)


def test_answers_that_do_not_leave_the_host_are_lost_and_not_sent(world: World) -> None:
    """Of a published port."""
    network = world.up()
    server = udp(world, world.zone, world.addresses.zone4)
    (to,) = world.on_host(lambda: network.publish([Port(HOST4, 0, server.getsockname()[1], "udp")]))
    client = udp(world, world.outside, OUTSIDE4)
    client.sendto(b"hello", to)
    data, origin = server.recvfrom(9)
    assert data == b"hello"
    keeps_from_sending(world, client.getsockname()[1])
    for _ in range(COUNT):
        server.sendto(bytes(SIZE), origin)
    counters = counted(world, "lost", COUNT)
    (row,) = network.flows()
    assert (counters["bytes_up"], counters["bytes_down"], row.bytes_up, row.bytes_down) == (0, 5, 0, 5)


def test_what_a_limit_drops_is_counted_where_it_is_dropped(world: World) -> None:
    """The engine gave it to the zone's link; what was dropped there and what the zone got are all of it."""
    world.network = world.new_network(bandwidth_bit_s=1_000_000)
    network = world.up()
    server = udp(world, world.outside, OUTSIDE4)
    client = udp(world, world.zone, world.addresses.zone4)
    client.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    client.sendto(b"hello", server.getsockname())
    _, zone = server.recvfrom(9)
    before = network.counters()
    many = 1000
    for number in range(many):
        server.sendto(bytes(SIZE), zone)
        if number % 50 == 49:  # no more at once than the engine's own queue holds
            passed = (number + 1) * SIZE
            world.wait_until(lambda passed=passed: told(network, before)[0] + told(network, before)[1] * SIZE >= passed)
    given, lost, dropped = told(network, before)
    assert (given + lost * SIZE, dropped > 100) == (many * SIZE, True)
    for _ in range(given // SIZE - dropped):
        assert len(client.recv(2000)) == SIZE
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(2000)
    assert told(network, before)[2] == dropped


def told(network: ZoneNetwork, before: dict[str, int]) -> tuple[int, int, int]:
    """Bytes given to the zone's link since then, datagrams that the engine lost, frames that the link dropped."""
    now = network.counters()
    given, lost, dropped = (now[name] - before[name] for name in ("bytes_down", "lost", "link_dropped"))
    return given, lost, dropped


@BOTH
def test_frames_of_the_link_are_counted_whole(world: World, address: str) -> None:
    network = world.up()
    world.meet()
    server = udp(world, world.outside, address)
    client = udp(world, world.zone, world.addresses.zone6 if ":" in address else world.addresses.zone4)
    before = network.counters()
    for _ in range(COUNT):
        client.sendto(bytes(SIZE), server.getsockname()[:2])
    counted(world, "bytes_up", COUNT * SIZE)
    heads = 14 + 8 + (40 if ":" in address else 20)
    up = network.counters()["link_bytes_up"] - before["link_bytes_up"]
    assert COUNT * (SIZE + heads) <= up < COUNT * (SIZE + heads) + 2000, "and what the zone's kernel says of itself"
