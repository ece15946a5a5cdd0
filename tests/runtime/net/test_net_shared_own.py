"""What zones of one network have each for itself: egress rules, the host's loopback, bandwidth, published ports."""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Any

import pytest
from support.networld import HOST4, OUTSIDE4, OUTSIDE6, World, digest_then_echo, receive_all
from support.rates import FREE, LEAST, LIMIT_BIT_S, MOST_BY_COUNT, assert_rate, drained, flowing, rate_at, tcp_rate
from support.sharedworld import Neighbour, SharedNetwork, pid_of

from pipeline.bundle.ports import parse_ports
from runtime.net import netns
from runtime.net.engine.control import ask
from runtime.net.errors import NetworkFault
from runtime.net.network import teardown

pytestmark = pytest.mark.root

REFUSED = errno.ECONNREFUSED


@pytest.fixture
def shared(world: World) -> SharedNetwork:
    return SharedNetwork(world)


def says_hi(connection: socket.socket) -> None:
    connection.sendall(b"hi")


def outcome(zone: Neighbour, address: str, port: int) -> Any:
    """What the zone gets from there, or the errno of the refusal."""
    try:
        with zone.inside(lambda: socket.create_connection((address, port), 30)) as connection:
            return receive_all(connection)
    except OSError as error:
        return error.errno


def outcomes(zones: tuple[Neighbour, Neighbour], address: str, port: int) -> list[Any]:
    return [outcome(zone, address, port) for zone in zones]


# -- egress ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_each_zone_is_judged_by_its_own_rules(world: World, shared: SharedNetwork, address: str) -> None:
    port, other = (world.serve(world.outside, address, 0, says_hi) for _ in range(2))
    pair = shared.zone("web", 2, egress=(f"allow {address} {port}", "deny any")), shared.zone("db", 3)
    assert outcomes(pair, address, port) == [b"hi", b"hi"]
    assert outcomes(pair, address, other) == [REFUSED, b"hi"]
    world.meet()
    with pytest.raises(Exception, match="ping"):
        world.shell(pair[0].namespace, f"ping -c 1 -W 1 {address}")
    world.shell(pair[1].namespace, f"ping -c 1 -W 30 {address}")
    assert [zone.network.counters()["denied"] for zone in pair] == [2, 0]


def test_rules_of_one_zone_change_and_nothing_changes_for_the_other(world: World, shared: SharedNetwork) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    web, db = shared.zone("web", 2), shared.zone("db", 3)
    shut = f"deny any {port}"

    def refused(zone: Neighbour) -> bool:
        try:
            zone.inside(lambda: socket.create_connection((OUTSIDE4, port), 30)).close()
        except ConnectionRefusedError:
            return True
        return False

    def closed() -> list[bool]:
        return [refused(web), refused(db)]

    with db.inside(lambda: socket.create_connection((OUTSIDE4, port), 30)) as connection:
        web.network.judge_by([shut])
        assert closed() == [True, False]
        db.network.judge_by([shut])
        web.network.judge_by([])
        assert closed() == [False, True]
        connection.sendall(b"still here")
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        assert receive_all(connection)[32:] == b"still here"
    os.kill(pid_of(shared), signal.SIGKILL)
    world.wait_until(lambda: not shared.segment.alive())
    world.on_host(shared.segment.revive)
    assert closed() == [False, True], "the next engine has the rules as they are"


@pytest.mark.parametrize(("gateway", "loopback"), [("gateway4", "127.0.0.1"), ("gateway6", "::1")])
def test_loopback_of_the_host_is_at_the_gateway_for_the_zone_alone_whose_rule_names_it(
    world: World, shared: SharedNetwork, gateway: str, loopback: str
) -> None:
    port = world.serve(world.host, loopback, 0, says_hi)
    web, db = pair = shared.zone("web", 2, egress=(f"allow {loopback} {port}",)), shared.zone("db", 3)
    address = getattr(web.addresses, gateway)
    assert outcomes(pair, address, port) == [b"hi", REFUSED]
    web.network.judge_by([])
    db.network.judge_by([f"allow {loopback} {port}"])
    assert outcomes(pair, address, port) == [REFUSED, b"hi"]


def test_udp_of_the_hosts_loopback_is_the_zones_alone_whose_rule_names_it(world: World, shared: SharedNetwork) -> None:
    server = world.on_host(lambda: socket.socket(type=socket.SOCK_DGRAM))
    world.stack.callback(server.close)
    server.bind(("127.0.0.1", 0))
    server.settimeout(30)
    port = server.getsockname()[1]
    web, db = shared.zone("web", 2, egress=(f"allow 127.0.0.1 {port}",)), shared.zone("db", 3)

    def client(zone: Neighbour) -> socket.socket:
        made: socket.socket = zone.inside(lambda: socket.socket(type=socket.SOCK_DGRAM))
        world.stack.callback(made.close)
        made.settimeout(30)
        made.connect((zone.addresses.gateway4, port))
        made.send(zone.name.encode())
        return made

    with pytest.raises(OSError) as failure:
        client(db).recv(1)
    assert failure.value.errno in (errno.EHOSTUNREACH, errno.EACCES)
    asked = client(web)
    data, origin = server.recvfrom(100)
    assert data == b"web"
    server.sendto(b"answered", origin)
    assert asked.recv(100) == b"answered"


# -- bandwidth ---------------------------------------------------------------------------------------------------------


def connect(world: World, zone: Neighbour) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection a zone makes: the zone's, the outside's."""
    with world.of(world.outside, lambda: socket.create_server((OUTSIDE4, 0))) as listener:
        listener.settimeout(20)
        near = zone.inside(lambda: socket.create_connection(listener.getsockname(), 20))
        return near, listener.accept()[0]


@pytest.mark.parametrize("upward", [True, False])
def test_limit_of_one_zone_holds_while_the_other_has_none(world: World, shared: SharedNetwork, upward: bool) -> None:
    web, db = shared.zone("web", 2, bandwidth_bit_s=LIMIT_BIT_S), shared.zone("db", 3)
    near, far = connect(world, web)
    source, sink = (near, far) if upward else (far, near)
    with drained(sink), flowing(source, sink):
        assert_rate(lambda: tcp_rate(*connect(world, db), upward=upward), FREE)
        assert_rate(lambda: rate_at(near), LEAST, MOST_BY_COUNT)


def test_limits_of_two_zones_are_each_their_own_and_hold_between_them(world: World, shared: SharedNetwork) -> None:
    web = shared.zone("web", 2, bandwidth_bit_s=LIMIT_BIT_S)
    db = shared.zone("db", 3, bandwidth_bit_s=4 * LIMIT_BIT_S)
    near, far = connect(world, db)
    with drained(far), flowing(near, far):
        assert_rate(lambda: rate_at(near), 4 * LEAST, 4 * MOST_BY_COUNT)
    with web.inside(lambda: socket.create_server((web.addresses.zone4, 0))) as listener:
        listener.settimeout(20)
        source = db.inside(lambda: socket.create_connection(listener.getsockname(), 20))
        sink = listener.accept()[0]
    with drained(sink), flowing(source, sink):
        assert_rate(lambda: rate_at(sink), LEAST, MOST_BY_COUNT)


def links_and_queues(world: World, shared: SharedNetwork, *devices: str) -> list[str]:
    """What there is of these devices and on them."""
    lines = world.shell(shared.segment.netns, "ip -o link; tc qdisc show")
    return [line for line in lines.splitlines() if any(device in line for device in devices)]


def buckets_in(lines: list[str]) -> int:
    return sum(line.startswith("qdisc tbf") for line in lines)  # a link's line names its queue, too


def test_limit_of_one_zone_changes_and_goes_without_the_others(world: World, shared: SharedNetwork) -> None:
    web = shared.zone("web", 2, bandwidth_bit_s=LIMIT_BIT_S)
    db = shared.zone("db", 3, bandwidth_bit_s=LIMIT_BIT_S)

    def of_db() -> list[str]:
        filters = world.shell(shared.segment.netns, f"tc filter show dev {db.vif} ingress")
        return [*links_and_queues(world, shared, db.vif, "limit3"), filters]

    before = of_db()
    assert buckets_in(before) == 2 and "limit3" in before[-1]
    for limit in (2 * LIMIT_BIT_S, 0, LIMIT_BIT_S):
        web.network.limit(limit)
        assert buckets_in(links_and_queues(world, shared, web.vif, "limit2")) == 2 * bool(limit)
        assert of_db() == before
    web.network.destroy()
    assert links_and_queues(world, shared, "limit2") == []
    assert of_db() == before


@pytest.mark.parametrize("by_ledger", [False, True])
def test_next_zone_with_the_same_address_has_no_limit_of_the_one_that_left(
    world: World, shared: SharedNetwork, by_ledger: bool
) -> None:
    first = shared.zone("first", 2, bandwidth_bit_s=LIMIT_BIT_S)
    assert links_and_queues(world, shared, "limit2")
    if by_ledger:
        teardown(first.records)
        teardown(first.records)
        shared.segment.leave(first.network)
    else:
        first.network.destroy()
    assert links_and_queues(world, shared, "limit2") == []
    netns.delete(first.namespace)
    world.wait_until(lambda: first.vif not in world.shell(shared.segment.netns, "ip -o link"))
    second = shared.zone("second", 2)
    second.network.limit(0)
    assert_rate(lambda: tcp_rate(*connect(world, second), upward=True), FREE)


def test_zone_whose_limit_this_host_cannot_hold_is_out_again(world: World, shared: SharedNetwork) -> None:
    shared.zone("web", 2)
    late = Neighbour(shared, "late", 4, {"bandwidth_bit_s": -1})
    shared.plug(late)
    world.on_host(late.network.create)
    with pytest.raises(NetworkFault, match="bandwidth: expected tc -batch - to succeed"):
        world.on_host(lambda: late.network.attach(late.vif))
    assert list(shared.segment.zones) == ["web"]
    links = world.shell(shared.segment.netns, "ip -o link").splitlines()
    assert not [line for line in links if "limit4" in line or (late.vif in line and "master" in line)]


# -- published ports ---------------------------------------------------------------------------------------------------


def test_ports_of_one_number_are_one_zones_by_tcp_and_anothers_by_udp(world: World, shared: SharedNetwork) -> None:
    web, db = shared.zone("web", 2), shared.zone("db", 3)
    for port in (80, 81):
        text = f"web {port}".encode()
        world.serve(web.namespace, web.addresses.zone4, port, lambda connection, text=text: connection.sendall(text))
    servers = [db.inside(lambda: socket.socket(type=socket.SOCK_DGRAM)) for _ in range(2)]
    for port, server in zip((80, 81), servers, strict=True):
        world.stack.callback(server.close)
        server.settimeout(30)
        server.bind((db.addresses.zone4, port))
    for zone, protocol in ((web, ""), (db, "/udp")):
        ports = parse_ports(f"{HOST4}:8080-8081:80-81{protocol}", subject="test")
        world.on_host(lambda zone=zone, ports=ports: zone.network.publish(ports))
    for offset, server in enumerate(servers):
        with world.of(world.outside, lambda at=(HOST4, 8080 + offset): socket.create_connection(at, 30)) as client:
            assert receive_all(client) == f"web {80 + offset}".encode()
        with world.of(world.outside, lambda: socket.socket(type=socket.SOCK_DGRAM)) as client:
            client.settimeout(30)
            client.connect((HOST4, 8080 + offset))
            client.send(b"hello")
            data, origin = server.recvfrom(100)
            assert data == b"hello" and origin[0] == OUTSIDE4
            server.sendto(f"db {80 + offset}".encode(), origin)
            assert client.recv(100) == f"db {80 + offset}".encode()
    web.network.unpublish(HOST4, 8080)
    assert [item.key for item in db.network.published()] == [f"{HOST4}:{port}/udp" for port in (8080, 8081)]
    with pytest.raises(ConnectionRefusedError):
        world.of(world.outside, lambda: socket.create_connection((HOST4, 8080), 30))


def test_zone_that_left_without_an_answer_is_out(world: World, shared: SharedNetwork) -> None:
    for name, host in (("one", 2), ("two", 3)):
        shared.zone(name, host)
    engine = shared.segment.running
    os.kill(engine.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        ask(str(shared.segment.control), {"op": "leave", "zone": "one"}, timeout_s=0.2)
    os.kill(engine.pid, signal.SIGCONT)
    assert engine.zones() == ["two"]
