"""Egress rules for real: what is closed opens to the rule that names it, and rules change while the engine runs."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

import pytest
from support.networld import HOST4, HOST6, OUTSIDE4, OUTSIDE6, World, digest_then_echo, receive_all

from pipeline.bundle.model import Port
from runtime.net.netlink import Routes
from runtime.net.network import ZoneNetwork

pytestmark = pytest.mark.root

METADATA = "169.254.169.254"
LOOPBACK = "127.0.0.1"


def says_hi(connection: socket.socket) -> None:
    connection.sendall(b"hi")


def outcome(world: World, address: str, port: int) -> Any:
    """What the zone gets from there, or the errno of the refusal."""
    try:
        with world.connect(address, port) as connection:
            return receive_all(connection)
    except OSError as error:
        return error.errno


def up_with(world: World, *egress: str) -> ZoneNetwork:
    world.network = world.new_network(egress=egress)
    return world.up()


@pytest.mark.parametrize("address", [HOST4, HOST6])
def test_address_of_the_host_is_open_to_the_rule_that_names_it_and_at_its_port_alone(
    world: World, address: str
) -> None:
    opened, other = (world.serve(world.host, address, 0, says_hi) for _ in range(2))
    network = up_with(world, f"allow {address} {opened}")
    assert outcome(world, address, opened) == b"hi"
    assert outcome(world, address, other) == errno.ECONNREFUSED
    assert network.counters()["denied"] == 1


def test_link_between_two_networks_is_declared_at_both_ends(world: World) -> None:
    """A port that one publishes on the host's loopback, and a rule of the other that names it: that port alone."""
    server = up_with(world)
    for zone_port in (80, 81):
        world.serve(world.zone, world.addresses.zone4, zone_port, says_hi)
    ((_, linked), (_, other)) = world.on_host(lambda: server.publish([Port(LOOPBACK, 0, each) for each in (80, 81)]))
    client, name = world.neighbour(egress=(f"allow {LOOPBACK} {linked}",))

    def reaches(address: str, port: int) -> bool:
        try:
            with world.of(name, lambda: socket.create_connection((address, port), 30)) as connection:
                return receive_all(connection) == b"hi"
        except ConnectionRefusedError:
            return False

    gateway = client.addresses.gateway4
    assert [reaches(gateway, port) for port in (linked, other)] == [True, False]
    assert not reaches(world.addresses.zone4, 80), "nothing else leads there"
    world.on_host(lambda: server.unpublish(LOOPBACK, linked))
    assert not reaches(gateway, linked)
    assert server.counters()["published"] == 1


def test_metadata_is_open_to_the_rule_that_names_it(world: World) -> None:
    world.ip(world.outside, f"address add {METADATA}/32 dev lo")
    port = world.serve(world.outside, METADATA, 0, says_hi)
    network = up_with(world, "allow any")
    assert outcome(world, METADATA, port) == errno.ECONNREFUSED
    network.judge_by([f"allow {METADATA} {port}"])
    assert outcome(world, METADATA, port) == b"hi"


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_rules_change_while_connections_run_and_hold_for_the_next_ones(world: World, address: str) -> None:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    network = up_with(world)
    with world.connect(address, port) as connection:
        network.judge_by(["deny any"])
        assert outcome(world, address, port) == errno.ECONNREFUSED
        connection.sendall(b"still here")
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        assert receive_all(connection)[32:] == b"still here"
    network.judge_by([f"allow {address}", "deny any"])
    world.connect(address, port).close()
    network.judge_by([])
    world.connect(address, port).close()


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_rules_are_asked_for_udp_and_ping_as_well(world: World, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = world.of(world.outside, lambda: socket.socket(family, socket.SOCK_DGRAM))
    server.bind((address, 0))
    server.settimeout(30)
    world.stack.callback(server.close)
    network = up_with(world, "allow any 9", "deny any")
    world.meet()
    with world.in_zone(lambda: socket.socket(family, socket.SOCK_DGRAM)) as client:
        client.settimeout(30)
        client.connect(server.getsockname()[:2])
        client.send(b"x")
        # "Administratively prohibited", as Linux has it for an application: icmp_err_convert, tab_unreach.
        with pytest.raises(OSError) as failure:
            client.recv(1)
        assert failure.value.errno in (errno.EHOSTUNREACH, errno.EACCES)
    with pytest.raises(Exception, match="ping"):
        world.shell(world.zone, f"ping -c 1 -W 1 {address}")
    assert network.counters()["denied"] >= 2
    network.judge_by([f"allow {address}", "deny any"])
    world.shell(world.zone, f"ping -c 1 -W 30 {address}")


def test_protocols_of_a_port_are_told_apart(world: World) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, says_hi)
    with world.of(world.outside, lambda: socket.socket(type=socket.SOCK_DGRAM)) as server:
        server.bind((OUTSIDE4, port))
        server.settimeout(30)
        network = up_with(world, f"allow any {port}/udp", "deny any")
        with world.in_zone(lambda: socket.socket(type=socket.SOCK_DGRAM)) as client:
            client.settimeout(30)
            client.connect((OUTSIDE4, port))
            client.send(b"x")
            data, zone = server.recvfrom(1)
            server.sendto(data, zone)
            assert client.recv(1) == b"x"
        assert outcome(world, OUTSIDE4, port) == errno.ECONNREFUSED
        network.judge_by([f"deny any {port}/udp"])
        assert outcome(world, OUTSIDE4, port) == b"hi"


def test_engine_that_comes_in_place_of_another_has_the_rules_as_they_are(world: World) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, says_hi)
    network = up_with(world)
    network.judge_by([f"deny any {port}"])
    world.on_host(network.revive)
    assert outcome(world, OUTSIDE4, port) == errno.ECONNREFUSED


def test_zoned_that_adopts_tells_the_engine_the_rules_it_knows(world: World) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, says_hi)
    network = up_with(world, "deny any")
    records = [dict(record) for record in world.records]
    world.abandon(network)
    successor = world.new_network(egress=(f"allow {OUTSIDE4} {port}", "deny any"))
    assert world.on_host(lambda: successor.adopt(records))
    assert outcome(world, OUTSIDE4, port) == b"hi"
    assert outcome(world, OUTSIDE4, port + 1) == errno.ECONNREFUSED


@pytest.mark.parametrize(("gateway", "loopback"), [("gateway4", "127.0.0.1"), ("gateway6", "::1")])
def test_loopback_of_the_host_is_at_the_gateway_for_the_rule_that_names_it(
    world: World, gateway: str, loopback: str
) -> None:
    opened, other = (world.serve(world.host, loopback, 0, digest_then_echo) for _ in range(2))
    address = getattr(world.addresses, gateway)
    network = up_with(world, "allow any")
    assert outcome(world, address, opened) == errno.ECONNREFUSED
    network.judge_by([f"allow {loopback} {opened}"])
    with world.connect(address, opened) as connection:
        connection.sendall(b"to the host")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == b"to the host"
    assert outcome(world, address, other) == errno.ECONNREFUSED
    world.shell(world.zone, f"ping -c 1 -W 30 {address}")  # still the gateway's own


def test_udp_of_the_hosts_loopback_answers_from_the_gateway(world: World) -> None:
    server = world.on_host(lambda: socket.socket(type=socket.SOCK_DGRAM))
    world.stack.callback(server.close)
    server.bind(("127.0.0.1", 0))
    server.settimeout(30)
    port = server.getsockname()[1]
    network = up_with(world)
    with world.in_zone(lambda: socket.socket(type=socket.SOCK_DGRAM)) as client:
        client.settimeout(30)
        client.connect((world.addresses.gateway4, port))
        client.send(b"refused")
        with pytest.raises(OSError):
            client.recv(1)
        network.judge_by([f"allow 127.0.0.1 {port}"])
        client.send(b"asked")
        data, origin = server.recvfrom(100)
        assert data == b"asked" and origin[0] == "127.0.0.1"
        server.sendto(b"answered", origin)
        assert client.recv(100) == b"answered"


@pytest.mark.parametrize(("own", "prefix"), [("203.0.113.77", 32), ("2001:db8:1::77", 128)])
def test_routes_are_known_until_anything_of_them_changes(world: World, own: str, prefix: int) -> None:
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    packed, far = socket.inet_pton(family, own), socket.inet_pton(family, OUTSIDE6 if ":" in own else OUTSIDE4)
    world.at_rest()
    routes = world.on_host(Routes)
    with contextlib.closing(routes):
        asked: list[bytes] = []
        ask = routes._kernel.route
        routes._kernel.route = lambda item: (asked.append(item), ask(item))[1]  # type: ignore[method-assign]
        for _ in range(3):
            assert (routes.route_type(packed), routes.route_type(far)) == ("unicast", "unicast")
        assert asked == [packed, far]
        for number in range(20):
            world.ip(world.host, f"address add {own}/{prefix} dev up0 nodad")
            # The kernel itself knows an IPv6 address a moment later than it says so, and says so again then.
            world.wait_until(lambda: routes.route_type(packed) == "local")
            world.ip(world.host, f"address del {own}/{prefix} dev up0")
            assert (routes.route_type(packed), number) == ("unicast", number)
        world.ip(world.host, f"route add blackhole {own}/{prefix}")
        assert routes.route_type(packed) != "unicast"
        world.ip(world.host, f"route del blackhole {own}/{prefix}", "link set up0 down")
        assert (routes.route_type(packed), routes.route_type(far)) == (None, None)


def test_address_the_host_was_given_a_moment_ago_is_closed(world: World) -> None:
    world.ip(world.outside, "address add 203.0.113.77/24 dev out0")
    port = world.serve(world.outside, "203.0.113.77", 0, says_hi)
    up_with(world)
    assert outcome(world, "203.0.113.77", port) == b"hi"
    world.serve(world.host, "0.0.0.0", port, says_hi)
    world.ip(world.host, "address add 203.0.113.77/32 dev up0")
    assert outcome(world, "203.0.113.77", port) == errno.ECONNREFUSED
    world.ip(world.host, "address del 203.0.113.77/32 dev up0")
    assert outcome(world, "203.0.113.77", port) == b"hi"
