"""The engine pasta, with a real one: what passes, what is refused, what ends with what."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.networld import DNS4, HOST4, OUTSIDE4, OUTSIDE6, VIF, World, digest_then_echo, make_world, receive_all

from pipeline.bundle.model import Port
from runtime.net import netns
from runtime.net.errors import EngineFault, NetworkFault
from runtime.net.network import ZoneNetwork
from runtime.net.pasta.engine import PastaEngine
from runtime.net.pasta.version import ask_version, check_version
from runtime.net.supervise import EngineSupervisor

pytestmark = [pytest.mark.root]


def find_pasta() -> str:
    """$ZONEWRIGHT_TEST_PASTA, or the one on the path."""
    program = os.environ.get("ZONEWRIGHT_TEST_PASTA") or shutil.which("pasta")
    if program is None:
        pytest.skip("needs program pasta (package passt)")
    try:
        check_version(program, ask_version(program))
    except EngineFault as fault:
        pytest.skip(f"needs another pasta: {fault}")
    return program


@pytest.fixture
def world() -> Iterator[World]:
    program = find_pasta()
    with make_world() as made:
        made.network = made.new_network(engine=PastaEngine(lambda: program))
        yield made


def up(world: World, *ports: Port) -> ZoneNetwork:
    network = world.network
    world.on_host(network.create)
    world.on_host(lambda: network.listen(ports))
    world.on_host(lambda: network.attach(VIF))
    world.on_host(network.serve)
    return network


def refusal(world: World, address: str, port: int) -> type[BaseException] | None:
    """How a connection of the zone's ends; None when it is made."""
    try:
        world.connect(address, port).close()
    except OSError as error:
        return type(error)
    return None


def test_tcp_passes_whole_both_ways_and_a_refusal_is_one(world):
    up(world)
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    data = os.urandom(300_000)
    with world.connect(OUTSIDE4, port) as connection:
        sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
        sender.start()
        answer = receive_all(connection)
        sender.join()
    assert answer[32:] == data
    assert refusal(world, OUTSIDE4, 1) is ConnectionRefusedError


def test_ipv6_passes_as_ipv4_does(world):
    up(world)
    port = world.serve(world.outside, OUTSIDE6, 0, digest_then_echo)
    with world.connect(OUTSIDE6, port) as connection:
        connection.sendall(b"six")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == b"six"
    assert refusal(world, OUTSIDE6, 1) is ConnectionRefusedError


def datagram_answer(world: World, address: str, port: int) -> bytes | type[OSError]:
    """What the zone gets for a datagram to there."""

    def ask() -> bytes | type[OSError]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            asking.connect((address, port))
            asking.send(b"anybody?")
            try:
                return asking.recv(2048)
            except OSError as error:
                return type(error)

    return world.in_zone(ask)


def echo_datagrams(world: World, name: str, address: str, port: int = 0) -> int:
    """A UDP server that says who asked; returns its port."""
    server = netns.inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind((address, port))
    server.settimeout(0.2)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            try:
                _, client = server.recvfrom(2048)
                server.sendto(client[0].encode(), client)
            except TimeoutError:
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def stop() -> None:
        ending.set()
        thread.join()
        server.close()

    world.stack.callback(stop)
    number: int = server.getsockname()[1]
    return number


def test_udp_is_answered(world):
    port = echo_datagrams(world, world.outside, OUTSIDE4)
    up(world)
    assert datagram_answer(world, OUTSIDE4, port) == HOST4.encode()


def test_names_are_asked_of_the_hosts_resolver_at_the_gateway(world):
    world.resolv_conf.write_text(f"nameserver {DNS4}\n")
    echo_datagrams(world, world.outside, DNS4, 53)
    up(world)
    assert datagram_answer(world, world.addresses.gateway4, 53) == HOST4.encode()


def test_another_name_server_of_the_hosts_is_used_from_then_on(world):
    world.resolv_conf.write_text(f"nameserver {OUTSIDE4}\n")
    echo_datagrams(world, world.outside, DNS4, 53)
    network = up(world)
    assert datagram_answer(world, world.addresses.gateway4, 53) is ConnectionRefusedError
    world.resolv_conf.write_text(f"nameserver {DNS4}\n")
    network.resolve_again()
    assert datagram_answer(world, world.addresses.gateway4, 53) == HOST4.encode()


def test_the_gateway_answers_pings_and_the_outside_where_the_host_lets_this_user_ping(world):
    world.shell(world.host, "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range")
    up(world)
    zone = world.addresses
    for address in (zone.gateway4, zone.gateway6, OUTSIDE4, OUTSIDE6):
        assert "1 received" in world.shell(world.zone, f"ping -n -c1 -W5 {address} || true"), address


def test_what_is_closed_is_refused_and_a_rule_that_names_it_opens_it(world):
    own = world.serve(world.host, HOST4, 0, lambda connection: connection.sendall(b"own"))
    open_one = world.serve(world.outside, OUTSIDE4, 0, lambda connection: connection.sendall(b"outside"))
    world.serve(world.host, "127.0.0.1", open_one, lambda connection: connection.sendall(b"loopback"))
    datagrams = echo_datagrams(world, world.host, HOST4)
    network = up(world)
    closed = [HOST4, "169.254.169.254", "10.75.99.2", "127.0.0.1", world.addresses.gateway4, "203.0.113.255"]
    for address in closed:
        if address != "127.0.0.1":  # the zone's own
            assert refusal(world, address, own if address == HOST4 else open_one) is ConnectionRefusedError, address
    assert datagram_answer(world, HOST4, datagrams) is PermissionError or True
    assert refusal(world, OUTSIDE4, open_one) is None
    world.on_host(lambda: network.judge_by([f"allow {HOST4} {own}/tcp", "deny any"]))
    assert refusal(world, HOST4, own) is None
    assert refusal(world, HOST4, own + 1 if own < 65535 else 1) is ConnectionRefusedError
    assert refusal(world, OUTSIDE4, open_one) is ConnectionRefusedError
