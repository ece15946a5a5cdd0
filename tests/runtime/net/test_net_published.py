"""Published ports for real: who the zone sees, and UDP."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from support.networld import HOST4, HOST6, OUTSIDE4, OUTSIDE6, World

from pipeline.bundle.model import Port
from runtime.net.engine.inflow import has_a_name
from runtime.net.engine.model import Limits
from runtime.net.errors import PortTaken

HOSTS = pytest.mark.parametrize(("host", "outside"), [(HOST4, OUTSIDE4), (HOST6, OUTSIDE6)])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("203.0.113.2", True),
        ("192.168.1.2", True),
        ("2001:db8::1", True),
        ("127.0.0.1", False),
        ("169.254.1.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("10.75.3.1", False),
        ("fd5a:6f6e:6577:3::1", False),
    ],
)
def test_zone_is_told_only_names_it_can_answer_to(host: str, expected: bool) -> None:
    assert has_a_name(host) is expected


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(world: World, namespace: str, address: str = "") -> socket.socket:
    """A UDP socket of a namespace, bound to an address."""
    made = world.of(namespace, lambda: socket.socket(family_of(address), socket.SOCK_DGRAM))
    world.stack.callback(made.close)
    made.settimeout(30)
    made.bind((address, 0))
    return made


def serve_udp(world: World, port: int) -> None:
    """A server of the zone's, both families: it answers with who asked, and what."""
    server = world.in_zone(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    server.bind(("::", port))

    def run() -> None:
        while True:
            data, client = server.recvfrom(65535)
            if data == b"stop":
                return
            name = client[0].removeprefix("::ffff:")
            server.sendto(f"{name} {client[1]} ".encode() + data, client)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop() -> None:
        world.in_zone(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)).sendto(b"stop", ("::1", port))
        thread.join(10)
        server.close()

    world.stack.callback(stop)


def exchange(client: socket.socket, to: tuple[str, int], data: bytes) -> bytes:
    client.sendto(data, to)
    answer, origin = client.recvfrom(65535)
    assert origin[:2] == to
    return answer


@pytest.mark.root
@HOSTS
def test_server_sees_the_clients_own_address(world: World, host: str, outside: str) -> None:
    def server(connection: socket.socket) -> None:
        connection.sendall(connection.getpeername()[0].encode())

    world.serve(world.zone, "::" if ":" in host else "0.0.0.0", 80, server)
    network = world.up()
    ((address, port),) = world.on_host(lambda: network.publish([Port(host, 0, 80)]))
    for _ in range(20):
        with world.of(world.outside, lambda: socket.create_connection((address, port), 30)) as client:
            assert client.recv(100).decode() == outside
    assert network.counters()["faults"] == 0


@pytest.mark.root
def test_client_on_the_host_itself_comes_from_the_gateway_or_by_its_own_name(world: World) -> None:
    def server(connection: socket.socket) -> None:
        connection.sendall(connection.getpeername()[0].encode())

    world.serve(world.zone, "0.0.0.0", 80, server)
    network = world.up()
    bound = world.on_host(lambda: network.publish([Port(name, 0, 80) for name in ("127.0.0.1", HOST4)]))
    seen = []
    for address, port in bound:
        with world.on_host(lambda a=address, p=port: socket.create_connection((a, p), 30)) as client:
            seen.append(client.recv(100).decode())
    assert seen == [world.addresses.gateway4, HOST4]


@pytest.mark.root
def test_clients_that_stay_take_no_connection_of_the_zones_own_nor_the_other_way_round(world: World) -> None:
    most = 3

    def server(connection: socket.socket) -> None:
        connection.sendall(b"hi")
        connection.recv(1)

    world.serve(world.zone, "0.0.0.0", 80, server)
    port = world.serve(world.outside, OUTSIDE4, 0, server)
    world.network = world.new_network(limits=Limits(connections=most, inward=most))
    network = world.up()
    ((_, published),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    with contextlib.ExitStack() as stack:

        def inward() -> bytes:
            client = world.of(world.outside, lambda: socket.create_connection((HOST4, published), 30))
            return stack.enter_context(client).recv(2)

        def outward() -> bytes:
            return stack.enter_context(world.connect(OUTSIDE4, port)).recv(2)

        for one, other in ((inward, outward), (outward, inward)):
            assert [one() for _ in range(most)] == [b"hi"] * most
            with pytest.raises(ConnectionError):
                one()
            assert other() == b"hi"
            stack.close()
            world.wait_until(lambda: network.counters()["active"] == 0)
    counters = network.counters()
    assert (counters["limited"], counters["faults"]) == (2, 0)
    assert (counters["bytes_up"], counters["bytes_down"]) == (2 * (most + 1), 2 * (most + 1))


@pytest.mark.root
@HOSTS
@pytest.mark.parametrize("named", [True, False])
def test_ports_of_connections_that_are_over_serve_the_next_clients(
    world: World, host: str, outside: str, named: bool
) -> None:
    """Towards the zone each takes a port of the client's address, or of the gateway's: one that comes often has few."""
    world.serve(
        world.zone, world.addresses.zone6 if ":" in host else "0.0.0.0", 80, lambda each: each.sendall(each.recv(9))
    )
    network = world.up()
    world.shell(network.netns, "echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range")
    at = host if named else "::1" if ":" in host else "127.0.0.1"
    ((_, port),) = world.on_host(lambda: network.publish([Port(at, 0, 80)]))

    def served() -> bool:
        with contextlib.suppress(OSError):
            client = world.of(world.outside if named else world.host, lambda: socket.create_connection((at, port), 10))
            with client:
                client.sendall(b"hi")
                client.shutdown(socket.SHUT_WR)
                return client.recv(9) == b"hi"
        return False

    for _ in range(10):
        world.wait_until(served)


@pytest.mark.root
@HOSTS
def test_udp_port_leads_to_the_zone_with_the_clients_address(world: World, host: str, outside: str) -> None:
    serve_udp(world, 53)
    network = world.up()
    world.meet()
    (to,) = world.on_host(lambda: network.publish([Port(host, 0, 53, "udp")]))
    clients = [udp(world, world.outside, outside) for _ in range(5)]
    for turn in range(3):
        for client in clients:
            name, port = client.getsockname()[:2]
            assert exchange(client, to, b"%d" % turn) == f"{name} {port} {turn}".encode()
    big = bytes(20000)
    assert exchange(clients[0], to, big).endswith(big)
    counters = network.counters()
    assert (counters["published"], counters["udp_active"], counters["faults"]) == (5, 5, 0)


@pytest.mark.root
@pytest.mark.parametrize(("wildcard", "asked"), [("0.0.0.0", "203.0.113.9"), ("::", HOST6)])
def test_udp_answer_comes_from_the_address_that_was_asked(world: World, wildcard: str, asked: str) -> None:
    serve_udp(world, 53)
    network = world.up()
    world.meet()
    ((_, port),) = world.on_host(lambda: network.publish([Port(wildcard, 0, 53, "udp")]))
    client = udp(world, world.outside, OUTSIDE6 if ":" in asked else OUTSIDE4)
    assert exchange(client, (asked, port), b"x").endswith(b" x")


@pytest.mark.root
@pytest.mark.parametrize(("wildcard", "asked"), [("0.0.0.0", "203.0.113.9"), ("::", "2001:db8:1::9")])
def test_udp_that_came_before_the_zone_was_served_is_answered_from_the_address_that_was_asked(
    world: World, wildcard: str, asked: str
) -> None:
    """The port is taken before the zone boots, and what comes meanwhile waits."""
    serve_udp(world, 53)
    network = world.up()
    if ":" in asked:
        world.ip(world.host, f"address add {asked}/64 dev up0 nodad")
    world.meet()
    ((_, port),) = world.on_host(lambda: network.listen([Port(wildcard, 0, 53, "udp")]))
    client = udp(world, world.outside, OUTSIDE6 if ":" in asked else OUTSIDE4)
    client.connect((asked, port))
    client.send(b"early")
    world.on_host(network.serve)
    assert client.recv(100).endswith(b" early")
    client.send(b"late")
    assert client.recv(100).endswith(b" late")
    assert network.counters()["published"] == 1, "one client is one"


@pytest.mark.root
def test_udp_and_tcp_may_have_the_same_port_and_end_apart(world: World) -> None:
    serve_udp(world, 53)
    world.serve(world.zone, "0.0.0.0", 53, lambda connection: connection.sendall(b"tcp"))
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 53)]))
    world.on_host(lambda: network.publish([Port(HOST4, port, 53, "udp")]))
    client = udp(world, world.outside, OUTSIDE4)
    assert exchange(client, (HOST4, port), b"x").endswith(b" x")
    with pytest.raises(PortTaken, match=f"{HOST4}:{port}/udp"):
        world.on_host(lambda: network.publish([Port(HOST4, port, 53, "udp")]))
    network.unpublish(HOST4, port, "udp")
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        exchange(client, (HOST4, port), b"x")
    with world.of(world.outside, lambda: socket.create_connection((HOST4, port), 30)) as connection:
        assert connection.recv(10) == b"tcp"


@pytest.mark.root
def test_udp_port_outlives_its_engine(world: World) -> None:
    serve_udp(world, 53)
    network = world.up()
    (to,) = world.on_host(lambda: network.publish([Port(HOST4, 0, 53, "udp")]))
    client = udp(world, world.outside, OUTSIDE4)
    assert exchange(client, to, b"before").endswith(b" before")
    assert network.engine is not None
    network.engine.stop()
    client.sendto(b"meanwhile", to)
    world.on_host(network.revive)
    assert client.recv(100).endswith(b" meanwhile")
    successor = world.new_network()
    world.abandon(network)
    assert world.on_host(lambda: successor.adopt(world.records))
    assert [(item.port, item.protocol) for item in successor.published()] == [(to[1], "udp")]
    assert exchange(client, to, b"after").endswith(b" after")


@pytest.mark.root
def test_clients_of_a_udp_port_are_bounded(world: World) -> None:
    serve_udp(world, 53)
    world.network = world.new_network(limits=Limits(udp_flows=8))
    network = world.up()
    (to,) = world.on_host(lambda: network.publish([Port(HOST4, 0, 53, "udp")]))
    steady = udp(world, world.outside, OUTSIDE4)
    steady.settimeout(10)
    assert exchange(steady, to, b"x").endswith(b" x")
    for number in range(100):
        udp(world, world.outside, OUTSIDE4).sendto(b"f", to)
        if number % 10 == 0:
            assert exchange(steady, to, b"%d" % number).endswith(b" %d" % number)
    assert exchange(steady, to, b"y").endswith(b" y")
    assert network.counters()["udp_active"] <= 2 * 8  # answers to clients that had to go are flows to the outside


@pytest.mark.root
def test_client_of_a_udp_port_is_listed_until_the_port_is_published_no_more(world: World) -> None:
    serve_udp(world, 53)
    network = world.up()
    (to,) = world.on_host(lambda: network.publish([Port(HOST4, 0, 53, "udp")]))
    made = udp(world, world.outside, OUTSIDE4)
    answer = exchange(made, to, b"x")
    (row,) = network.flows()
    assert (row.protocol, row.zone_side) == ("udp", f"{world.addresses.zone4}:53")
    assert row.outside == f"{OUTSIDE4}:{made.getsockname()[1]}"
    assert (row.bytes_up, row.bytes_down) == (len(answer), 1)
    world.on_host(lambda: network.unpublish(*to, protocol="udp"))
    assert network.flows() == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("outside", "host", "route", "forwarding"),
    [
        (OUTSIDE4, HOST4, "zone4", "ipv4/ip_forward"),
        (OUTSIDE6, HOST6, "zone6", "ipv6/conf/all/forwarding"),
    ],
)
def test_nobody_outside_comes_to_a_zone_by_a_route_through_the_host(
    world: World, outside: str, host: str, route: str, forwarding: str
) -> None:
    """Also where the host forwards for others; but for what is published, nothing leads in."""
    zone = getattr(world.addresses, route)
    server = world.serve(world.zone, zone, 0, lambda connection: connection.sendall(b"in"))
    network = world.up()
    world.meet()
    ((_, published),) = world.on_host(lambda: network.publish([Port(host, 0, server)]))
    world.ip(world.outside, f"route add {zone} via {host}")
    world.shell(world.host, f"echo 1 > /proc/sys/net/{forwarding}")
    heard = world.in_zone(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
    world.stack.callback(heard.close)
    heard.bind(("eth0", 3))
    heard.setblocking(False)

    with pytest.raises(OSError):
        world.of(world.outside, lambda: socket.create_connection((zone, server), 1.5))
    with udp(world, world.outside, outside) as asking:
        asking.sendto(b"anybody?", (zone, server))
    world.shell(world.outside, f"ping -n -c 2 -i 0.2 -W 1 {zone} || true")

    sender = socket.inet_pton(family_of(outside), outside)
    assert [packet for packet in received(heard) if sender in packet] == []
    with world.of(world.outside, lambda: socket.create_connection((host, published), 30)) as connection:
        assert connection.recv(9) == b"in"
    assert any(sender in packet for packet in received(heard)), "what is let in would have been heard"


def received(raw: socket.socket) -> list[bytes]:
    """What waits in a socket."""
    packets = []
    while True:
        try:
            packets.append(raw.recv(65535))
        except BlockingIOError:
            return packets
