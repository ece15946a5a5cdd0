"""UDP of a zone to the outside, for real."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from pathlib import Path

import pytest
from support.networld import HOST4, OUTSIDE4, OUTSIDE6, World

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.feedback import queue_errors
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.udp import Flow, Flows

pytestmark = pytest.mark.root

BOTH = pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
FAR4, FAR6 = "192.0.2.9", "2001:db8:9::9"


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def echo(world: World, address: str, *, name: str = "", port: int = 0) -> int:
    """A UDP server that answers each datagram with `<` and itself; returns its port."""
    server = world.of(name or world.outside, lambda: socket.socket(family_of(address), socket.SOCK_DGRAM))
    server.bind((address, port))

    def run() -> None:
        while True:
            data, client = server.recvfrom(65535)
            if data == b"stop":
                return
            server.sendto(b"<" + data[: 65535 - 8 - 20 - 1], client)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop() -> None:
        server.sendto(b"stop", server.getsockname())
        thread.join(10)
        server.close()

    world.stack.callback(stop)
    number: int = server.getsockname()[1]
    return number


def client(world: World, address: str, port: int, *, timeout_s: float = 30.0) -> socket.socket:
    """A connected socket of the zone: it takes answers only from where it sends to."""

    def make() -> socket.socket:
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.settimeout(timeout_s)
        made.connect((address, port))
        return made

    made = world.in_zone(make)
    world.stack.callback(made.close)
    return made


def exchange(connection: socket.socket, data: bytes) -> bytes:
    connection.send(data)
    return connection.recv(65535)


@BOTH
def test_answers_come_from_where_the_zone_asked(world: World, address: str) -> None:
    port = echo(world, address)
    network = world.up()
    connection = client(world, address, port)
    for number in range(20):
        assert exchange(connection, b"%d" % number) == b"<%d" % number
    counters = network.counters()
    assert (counters["udp_flows"], counters["udp_active"], counters["faults"]) == (1, 1, 0)
    assert (counters["bytes_up"], counters["bytes_down"]) == (30, 50)


@BOTH
def test_datagrams_of_one_zone_port_to_many_and_of_many_to_one_do_not_mix(world: World, address: str) -> None:
    ports = [echo(world, address) for _ in range(3)]
    world.up()
    clients = [client(world, address, port) for port in ports for _ in range(8)]
    for turn in range(3):
        for number, each in enumerate(clients):
            each.send(b"%d %d" % (turn, number))
        for number, each in enumerate(clients):
            assert each.recv(100) == b"<%d %d" % (turn, number)


@BOTH
@pytest.mark.parametrize("size", [0, 1, 1400, 1472, 1473, 9000, 60000, 65500])
def test_datagram_of_any_size_passes_both_ways(world: World, address: str, size: int) -> None:
    port = echo(world, address)
    network = world.up()
    world.meet()
    data = os.urandom(size)
    connection = client(world, address, port)
    assert exchange(connection, data) == b"<" + data  # the first one, at the listener
    assert exchange(connection, data) == b"<" + data  # and the second, at the flow's own socket
    assert network.counters()["faults"] == 0


@BOTH
def test_burst_at_the_birth_of_a_flow_arrives_whole(world: World, address: str) -> None:
    port = echo(world, address)
    world.up()
    world.meet()
    connection = client(world, address, port)
    for number in range(50):
        connection.send(b"%d" % number)
    assert {connection.recv(100) for _ in range(50)} == {b"<%d" % number for number in range(50)}


def socket_of_the_engines(world: World, address: str, port: int, zone: tuple[str, int] | None = None) -> socket.socket:
    """A socket of the network's namespace with an address of the outside, as a flow has one."""

    def make() -> socket.socket:
        made = socket.socket(family_of(address), socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
        made.bind((address, port))
        if zone is not None:
            made.connect(zone)
        made.settimeout(30)
        return made

    made = world.of(world.network.netns, make)
    world.stack.callback(made.close)
    return made


@BOTH
def test_socket_of_a_flow_takes_nobody_elses_first_datagram_before_it_is_connected(world: World, address: str) -> None:
    """The moment between bind and connect, as long as one likes."""
    port = echo(world, address)
    world.up()
    half_made = socket_of_the_engines(world, address, port)
    assert exchange(client(world, address, port), b"x") == b"<x"
    half_made.setblocking(False)
    with pytest.raises(BlockingIOError):
        half_made.recv(100)


@BOTH
def test_flow_of_an_engine_of_before_whose_socket_is_not_transparent_goes_on(world: World, address: str) -> None:
    network = world.up()
    connection = client(world, address, 9999)
    earlier = socket_of_the_engines(world, address, 9999, connection.getsockname()[:2])
    connection.send(b"x")
    assert earlier.recv(100) == b"x"
    assert network.counters()["udp_flows"] == 0


@BOTH
def test_closed_port_is_refused(world: World, address: str) -> None:
    world.up()
    world.meet()
    connection = client(world, address, 9)
    with pytest.raises(ConnectionRefusedError):
        exchange(connection, b"x")


@pytest.mark.parametrize(
    ("address", "expected"),
    [(HOST4, errno.EHOSTUNREACH), ("10.75.8.2", errno.EHOSTUNREACH), ("fd00:ec2::254", errno.EACCES)],
)
def test_closed_destination_is_prohibited(world: World, address: str, expected: int) -> None:
    if address == HOST4:
        echo(world, HOST4, name=world.host, port=9053)
    network = world.up()
    connection = client(world, address, 9053)
    with pytest.raises(OSError) as caught:
        exchange(connection, b"x")
    assert caught.value.errno == expected
    assert network.counters()["denied"] == 1


@BOTH
def test_egress_rule_denies_a_port(world: World, address: str) -> None:
    closed, opened = echo(world, address), echo(world, address)
    world.network = world.new_network(egress=(f"deny 0.0.0.0/0 {closed}", f"deny ::/0 {closed}"))
    world.up()
    with pytest.raises(OSError):
        exchange(client(world, address, closed), b"x")
    assert exchange(client(world, address, opened), b"x") == b"<x"


@pytest.mark.parametrize("address", [FAR4, FAR6])
def test_no_route_is_no_route(world: World, address: str) -> None:
    world.up()
    world.ip(world.host, "route del default")
    connection = client(world, address, 9)
    queue_errors(connection, connection.family, wanted=True)  # without, Linux keeps it from UDP sockets, as it may pass
    with pytest.raises(OSError) as caught:
        exchange(connection, b"x")
    assert caught.value.errno == errno.ENETUNREACH


@BOTH
@pytest.mark.parametrize("port", [53, 123])
def test_ports_of_well_known_services_are_like_any_other(world: World, address: str, port: int) -> None:
    echo(world, address, port=port)
    world.up()
    assert exchange(client(world, address, port), b"query") == b"<query"


def test_stranger_cannot_answer_in_somebodys_place(world: World) -> None:
    port = echo(world, OUTSIDE4)
    world.up()
    connection = client(world, OUTSIDE4, port)
    assert exchange(connection, b"x") == b"<x"
    line = world.on_host(Path("/proc/thread-self/net/udp").read_text).splitlines()[-1]
    outer = int(line.split()[1].split(":")[1], 16)
    stranger = world.of(world.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with stranger:
        stranger.sendto(b"evil", (HOST4, outer))
    assert exchange(connection, b"y") == b"<y"


@pytest.mark.parametrize("address", [FAR4, FAR6])
@pytest.mark.parametrize("where", ["host", "router"])
def test_path_mtu_reaches_the_zone(world: World, address: str, where: str) -> None:
    """Known to the host's routing, or told by a router of the way: the zone learns it once and sends in fragments.

    What the router dropped is lost; what the host would not send as it is went in fragments.
    """
    v6 = ":" in address
    via = OUTSIDE6 if v6 else OUTSIDE4
    if where == "host":
        world.ip(world.outside, f"address add {address} dev lo")
        world.ip(world.host, f"route add {address} via {via} mtu 1300")
    else:
        world.behind_a_narrow_link(address)
        world.ip(world.host, f"route add {address} via {via}")
    port = echo(world, address, name=world.outside if where == "host" else world.beyond)
    world.up()
    world.meet()
    connection = client(world, address, port)
    with pytest.raises(OSError) as caught:
        exchange(connection, bytes(1400))
    assert caught.value.errno == errno.EMSGSIZE
    assert "mtu 1300" in world.shell(world.zone, f"ip {'-6 ' if v6 else ''}route get {address}")
    if where == "host":
        assert connection.recv(65535) == b"<" + bytes(1400)
    assert exchange(connection, bytes(1400)) == b"<" + bytes(1400)
    assert exchange(connection, bytes(4000)) == b"<" + bytes(4000)
    # Nor does a flow of later lose its first one, or hear again of what the zone does already.
    for _ in range(3):
        assert exchange(client(world, address, port), bytes(1400)) == b"<" + bytes(1400)


@BOTH
def test_flows_beyond_the_limit_replace_the_idlest(world: World, address: str) -> None:
    port = echo(world, address)
    world.network = world.new_network(limits=Limits(udp_flows=4))
    network = world.up()
    busy = client(world, address, port)
    for number in range(20):
        assert exchange(busy, b"%d" % number) == b"<%d" % number
        assert exchange(client(world, address, port), b"once") == b"<once"
    counters = network.counters()
    assert counters["udp_active"] == 4
    assert counters["udp_flows"] == 21, "the busy one was never begun again"
    assert counters["limited"] == 17


@BOTH
def test_flood_of_ports_leaves_descriptors_and_others_alone(world: World, address: str) -> None:
    port = echo(world, address)
    network = world.up()
    assert network.engine is not None
    steady = client(world, address, port, timeout_s=10)
    assert exchange(steady, b"x") == b"<x"

    def flood() -> None:
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as many:
            for number in range(3000):
                many.sendto(b"f", (address, 10000 + number))

    world.in_zone(flood)
    assert exchange(steady, b"y") == b"<y"
    counters = network.counters()
    assert counters["udp_active"] <= Limits().udp_flows
    assert len(os.listdir(f"/proc/{network.engine.pid}/fd")) < 2 * Limits().udp_flows + 60
    assert counters["faults"] == 0


@BOTH
def test_flow_begins_anew_after_the_engine_died(world: World, address: str) -> None:
    port = echo(world, address)
    network = world.up()
    connection = client(world, address, port)
    assert exchange(connection, b"before") == b"<before"
    assert network.engine is not None
    network.engine.stop()
    connection.send(b"meanwhile")
    world.on_host(network.revive)
    assert connection.recv(100) == b"<meanwhile"


class OpenEgress:
    """Everything may be reached."""

    def allows(self, host: str, port: int, protocol: str) -> bool:
        return True

    def outer(self, host: str) -> str:
        return host


def test_idle_flow_gives_everything_back() -> None:
    loop, traffic = Loop(), Traffic(Limits(udp_idle_s=50))
    flows = Flows(loop, traffic, OpenEgress(), None, socket.socket, mtu=1500)  # type: ignore[arg-type]
    flows._take(socket.AF_INET, b"x", ("127.0.0.1", 40001), ("127.0.0.2", 40002), 64)
    (flow,) = traffic.flows.values()
    flow.tick(time.monotonic() + 49)
    assert traffic.flows and all(each.fileno() >= 0 for each in flow.sockets)
    flow.tick(time.monotonic() + 51)
    assert not traffic.flows
    assert not loop.patient and not loop._watched
    assert all(each.fileno() < 0 for each in flow.sockets)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_refusal_of_a_datagram_does_not_cost_the_one_after_it(address: str) -> None:
    flows = Flows(Loop(), Traffic(Limits()), OpenEgress(), None, socket.socket, mtu=1500)  # type: ignore[arg-type]
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as server:
        server.bind((address, 0))
        remote = server.getsockname()[:2]
        near, far = (socket.socket(family_of(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(2))
        flow = Flow(flows, b"", remote, near, far)
        for each in (near, far):
            queue_errors(each, each.family, wanted=each is far)
            each.connect(remote)
        server.close()
        for each in (near, far):
            each.send(b"refused")  # which the kernel knows, and says to whoever sends next
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as later:
            later.bind(remote)
            later.settimeout(30)
            flow.send(b"up")
            assert later.recv(100) == b"up"
            later.sendto(b"down", far.getsockname())
            flow.ready(far, select.EPOLLIN)
            assert later.recv(100) == b"down"
        near.close()
        far.close()


def test_flow_is_listed_with_its_bytes(world: World) -> None:
    port = echo(world, OUTSIDE6)
    network = world.up()
    connection = client(world, OUTSIDE6, port)
    assert exchange(connection, b"four") == b"<four"
    (row,) = network.flows()
    zone = f"[{world.addresses.zone6}]:{connection.getsockname()[1]}"
    assert (row.protocol, row.zone_side, row.outside) == ("udp", zone, f"[{OUTSIDE6}]:{port}")
    assert (row.state, row.bytes_up, row.bytes_down) == ("open", 4, 5)
