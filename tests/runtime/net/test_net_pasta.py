"""The engine pasta, with a real one: what passes, what is refused, what ends with what."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.networld import (
    DNS4,
    HOST4,
    HOST6,
    OUTSIDE4,
    OUTSIDE6,
    VIF,
    World,
    digest_then_echo,
    make_world,
    receive_all,
    wait_for_links,
)
from support.pastabuild import pasta_for_tests

from pipeline.bundle.model import Port
from pipeline.store import Store
from runtime.net import netns
from runtime.net.engine.proxy import ProxyHandle
from runtime.net.errors import EngineFault
from runtime.net.network import ZoneNetwork
from runtime.net.pasta.engine import PastaEngine
from runtime.net.pasta.version import NEEDED, ask_version, version_of
from runtime.net.published import listen_on
from runtime.net.supervise import EngineSupervisor

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def pasta() -> Iterator[str]:
    """A program that will do; not below /tmp, of which the keeper has a private one."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield pasta_for_tests(Path(directory), Store())


@pytest.fixture
def world(pasta: str) -> Iterator[World]:
    with make_world() as made:
        made.network = made.new_network(engine=PastaEngine(lambda: pasta))
        yield made


def up(world: World, *ports: Port) -> ZoneNetwork:
    network = world.network
    world.on_host(network.create)
    world.on_host(lambda: network.listen(ports))
    world.on_host(lambda: network.attach(VIF))
    world.on_host(network.serve)
    wait_for_links(world.zone, "eth0")
    return network


def refusal(world: World, address: str, port: int) -> type[BaseException] | None:
    """How a connection of the zone's ends; None when it is made."""
    try:
        world.connect(address, port).close()
    except OSError as error:
        return type(error)
    return None


def receive(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer where the stream ends before."""
    parts: list[bytes] = []
    while count and (data := connection.recv(min(count, 65536))):
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def test_tcp_passes_whole_both_ways_and_a_refusal_is_one(world):
    """The end comes when all has been answered: what pasta 2025_05_03 does of one sooner is in docs/network.md."""
    data = os.urandom(300_000)

    def echo(connection: socket.socket) -> None:
        connection.sendall(receive(connection, len(data)))
        connection.sendall(b"end" + receive_all(connection))

    up(world)
    port = world.serve(world.outside, OUTSIDE4, 0, echo)
    with world.connect(OUTSIDE4, port) as connection:
        sender = threading.Thread(target=lambda: connection.sendall(data))
        sender.start()
        answer = receive(connection, len(data))
        sender.join()
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == b"end"
    assert answer == data
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
            asking.settimeout(30)
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


def test_a_resolver_on_the_hosts_loopback_is_asked_and_nothing_else_there_is(world):
    world.resolv_conf.write_text("nameserver 127.0.0.53\n")
    world.ip(world.host, "address add 127.0.0.53/8 dev lo")
    echo_datagrams(world, world.host, "127.0.0.53", 53)
    other = echo_datagrams(world, world.host, "127.0.0.53")
    up(world)
    assert datagram_answer(world, world.addresses.gateway4, 53) == b"127.0.0.1"
    assert issubclass(datagram_answer(world, world.addresses.gateway4, other), OSError)


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


def say_hello(connection: socket.socket) -> None:
    connection.sendall(b"hello")


def test_what_is_closed_is_refused_and_a_rule_that_names_it_opens_it(world):
    own = world.serve(world.host, HOST4, 0, say_hello)
    outer = world.serve(world.outside, OUTSIDE4, 0, say_hello)
    world.serve(world.host, "127.0.0.1", outer, say_hello)
    datagrams = echo_datagrams(world, world.host, HOST4)
    network = up(world)
    for address in ("169.254.169.254", "10.75.99.2", world.addresses.gateway4, "203.0.113.255", "fe80::7%eth0"):
        assert refusal(world, address, outer) is not None, address
    for address in (HOST4, "203.0.113.9", HOST6):
        assert refusal(world, address, own) is ConnectionRefusedError, address
    assert refusal(world, OUTSIDE4, outer) is None
    assert issubclass(datagram_answer(world, HOST4, datagrams), OSError)

    world.on_host(lambda: network.judge_by([f"allow {HOST4} {own}/tcp", f"allow {HOST4} {datagrams}/udp", "deny any"]))
    assert refusal(world, HOST4, own) is None
    assert datagram_answer(world, HOST4, datagrams) == HOST4.encode()
    assert refusal(world, HOST4, 1) is ConnectionRefusedError
    assert refusal(world, OUTSIDE4, outer) is ConnectionRefusedError
    assert refusal(world, OUTSIDE6, outer) is ConnectionRefusedError

    world.on_host(lambda: network.judge_by(["allow 203.0.113.0/24", "deny any"]))
    assert refusal(world, HOST4, own) is ConnectionRefusedError
    assert refusal(world, OUTSIDE4, outer) is None


def test_connections_that_run_outlive_a_rule_against_them(world):
    outer = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    network = up(world)
    with world.connect(OUTSIDE4, outer) as connection:
        world.on_host(lambda: network.judge_by(["deny any"]))
        connection.sendall(b"still here")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == b"still here"
    assert refusal(world, OUTSIDE4, outer) is ConnectionRefusedError


def test_an_address_that_the_host_is_given_is_closed_while_no_zoned_runs(world):
    """Only the keeper is told: nothing here asks the network anything after it is up."""
    network = up(world)
    new = "203.0.113.77"
    own = world.serve(world.host, "0.0.0.0", 0, say_hello)
    before = world.shell(network.netns, "nft list chain bridge guard egress4")
    assert new not in before
    world.ip(world.host, f"address add {new}/32 dev up0")
    world.wait_until(lambda: new in world.shell(network.netns, "nft list chain bridge guard egress4"))
    assert refusal(world, new, own) is ConnectionRefusedError
    world.ip(world.host, f"address del {new}/32 dev up0")
    world.wait_until(lambda: new not in world.shell(network.netns, "nft list chain bridge guard egress4"))


def test_a_zone_that_says_it_is_another_is_not_heard(world):
    outer = world.serve(world.outside, OUTSIDE4, 0, say_hello)
    up(world)
    assert refusal(world, OUTSIDE4, outer) is None
    world.ip(world.zone, "address add 10.75.7.9/24 dev eth0")
    with pytest.raises(TimeoutError):
        world.connect(OUTSIDE4, outer, source="10.75.7.9", timeout_s=1.0)


def test_a_neighbour_of_the_hosts_that_calls_itself_the_gateway_is_not_the_zones(world):
    """Later versions of pasta tell a zone the MACs of the host's neighbours, whatever these call themselves."""
    zone = world.addresses
    ports = [(address, world.serve(world.outside, address, 0, say_hello)) for address in (OUTSIDE4, OUTSIDE6)]
    up(world)
    for gateway in (zone.gateway4, zone.gateway6):
        world.ip(world.host, f"neigh replace {gateway} lladdr 02:00:00:00:00:66 dev up0 nud reachable")
    world.ip(world.zone, "neigh flush dev eth0")
    assert [refusal(world, *port) for port in ports] == [None, None]
    known = world.shell(world.zone, "ip neigh show dev eth0")
    assert OUTSIDE4 not in known and "02:00:00:00:00:66" not in known


def client_seen(world: World, name: str, address: str, port: int) -> str:
    with world.of(name, lambda: socket.create_connection((address, port), 30)) as connection:
        return receive_all(connection).decode()


def say_who(connection: socket.socket) -> None:
    connection.sendall(str(connection.getpeername()[0]).encode())


def test_published_ports_show_the_client_and_are_the_zones_alone(world):
    world.serve(world.zone, world.addresses.zone4, 80, say_who)
    echo_datagrams(world, world.zone, world.addresses.zone4, 53)
    here = [Port(HOST4, 8000, 80), Port("127.0.0.1", 8080, 80), Port(HOST4, 5353, 53, "udp")]
    network = up(world, *here)
    assert client_seen(world, world.outside, HOST4, 8000) == OUTSIDE4
    assert client_seen(world, world.host, "127.0.0.1", 8080) == world.addresses.gateway4
    world.on_host(lambda: network.judge_by(["deny any"]))  # answers are none of its business

    def ask() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(30)
            asking.connect((HOST4, 5353))
            asking.send(b"who am I?")
            return asking.recv(100)

    assert world.of(world.outside, ask) == OUTSIDE4.encode()
    assert client_seen(world, world.outside, HOST4, 8000) == OUTSIDE4
    with pytest.raises(OSError, match="in use"):
        world.on_host(lambda: socket.create_server((HOST4, 8000)))
    assert network.answers(80)
    assert not network.answers(81)


def test_a_port_of_roots_is_published_as_any_or_the_version_is_one_that_may_not(world, pasta):
    world.serve(world.zone, world.addresses.zone4, 80, say_who)
    try:
        up(world, Port(HOST4, 80, 80))
    except EngineFault as fault:
        assert "may bind no port below 1024, here 80; the engine splice can" in str(fault)
        assert (version_of(ask_version(pasta)) or NEEDED) > NEEDED
    else:
        assert client_seen(world, world.outside, HOST4, 80) == OUTSIDE4


def test_what_a_pasta_that_ends_before_it_serves_said_is_told():
    """It closes what it is to be ready at before it is seen to end: that is no silence."""
    said = "Listen failed for HOST TCP port 203.0.113.1/80: Permission denied"
    lines = ["#!/bin/sh", 'while [ "$1" != --pid ]; do shift; done', ': > "$2"', f"echo '{said}'", "echo so it ends"]
    with make_world() as world, tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        program = Path(directory) / "pasta"
        program.write_text("\n".join(lines))
        program.chmod(0o755)
        world.network = world.new_network(engine=PastaEngine(lambda: str(program)))
        with pytest.raises(EngineFault, match=f"it ended: {said}; so it ends .*here 80; the engine splice can"):
            up(world, Port(HOST4, 80, 80))


def test_a_zone_that_the_keeper_took_without_an_answer_is_served_when_it_is_asked_again(world, monkeypatch):
    world.serve(world.zone, world.addresses.zone4, 80, say_who)
    network = world.network
    world.on_host(network.create)
    world.on_host(lambda: network.listen([Port(HOST4, 8080, 80)]))
    world.on_host(lambda: network.attach(VIF))
    assert network.engine is not None
    network.engine.wait_ready(20)
    with monkeypatch.context() as hurried:
        hurried.setitem(ProxyHandle._ask.__kwdefaults__, "timeout_s", 0.2)
        hurried.setattr(network.engine, "wait_ready", lambda timeout_s: None)
        os.kill(network.engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineFault, match="no answer"):
            world.on_host(network.serve)
    os.kill(network.engine.pid, signal.SIGCONT)
    world.on_host(network.serve)
    assert client_seen(world, world.outside, HOST4, 8080) == OUTSIDE4


def test_ports_of_a_zone_that_runs_are_not_changed(world):
    network = up(world, Port(HOST4, 8080, 80))
    with pytest.raises(
        EngineFault, match=r"port 203\.0\.113\.1:8081: a zone's ports are pasta's from its start; restart"
    ):
        world.on_host(lambda: network.publish([Port(HOST4, 8081, 80)]))


def test_flows_are_not_told(world):
    network = up(world)
    with pytest.raises(EngineFault, match="expected one that tells what passes, got pasta"):
        network.flows()


def test_what_pasta_may_do(world):
    network = up(world, Port("127.0.0.1", 8080, 80))
    assert refusal(world, OUTSIDE4, 1) is ConnectionRefusedError, "it serves: it says so before (passt.c, main)"
    assert network.engine is not None
    (child,) = Path(f"/proc/{network.engine.pid}/task/{network.engine.pid}/children").read_text().split()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
    uid = str(network.segment.uid)
    assert status["Uid"].split() == status["Gid"].split() == [uid] * 4
    assert status["Groups"].strip() == ""
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert os.readlink(f"/proc/{child}/ns/user") != os.readlink(
        "/proc/self/ns/user"
    )  # what capabilities it has are there
    assert os.listdir(f"/proc/{child}/root") == []


def test_a_killed_keeper_or_pasta_is_replaced_and_ports_stay_the_zones(world):
    world.serve(world.zone, world.addresses.zone4, 80, say_who)
    outer = world.serve(world.outside, OUTSIDE4, 0, say_hello)
    network = up(world, Port(HOST4, 8080, 80))
    events: list[str] = []
    revived = threading.Semaphore(0)

    def on_event(network: object, event: str, text: str) -> None:
        events.append(f"{event}: {text}")
        if event == "revived":
            revived.release()

    supervisor = world.on_host(lambda: EngineSupervisor(on_event, resolv_conf=world.resolv_conf))
    world.stack.callback(supervisor.close)
    supervisor.add(network)
    for victim in ("keeper", "pasta"):
        engine = network.engine
        assert engine is not None
        (child,) = Path(f"/proc/{engine.pid}/task/{engine.pid}/children").read_text().split()
        os.kill(engine.pid if victim == "keeper" else int(child), signal.SIGKILL)
        assert revived.acquire(timeout=60), events
        assert not Path(f"/proc/{child}").exists()
        assert client_seen(world, world.outside, HOST4, 8080) == OUTSIDE4
        assert refusal(world, OUTSIDE4, outer) is None
    assert any("it ended by signal 9" in event for event in events), events
    assert network.restarts == 2


def test_a_later_zoned_takes_it_over_with_its_ports_and_rules(world, pasta):
    world.serve(world.zone, world.addresses.zone4, 80, say_who)
    outer = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    first = up(world, Port(HOST4, 8080, 80))
    with world.connect(OUTSIDE4, outer) as connection:
        world.abandon(first)
        later = world.new_network(engine=PastaEngine(lambda: pasta))
        assert world.on_host(lambda: later.adopt(world.records))
        connection.sendall(b"all the while")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == b"all the while"
    assert [(item.address, item.port, item.served) for item in later.published()] == [(HOST4, 8080, True)]
    assert client_seen(world, world.outside, HOST4, 8080) == OUTSIDE4
    assert later.engine is not None and first.engine is not None
    assert later.engine.pid == first.engine.pid
    world.on_host(later.engine.stop)
    world.on_host(later.revive)
    assert client_seen(world, world.outside, HOST4, 8080) == OUTSIDE4
    assert refusal(world, OUTSIDE4, outer) is None
    later.destroy()
    assert not netns.path_of(later.netns).exists()
    world.on_host(lambda: socket.create_server((HOST4, 8080))).close()


def test_a_port_that_another_took_meanwhile_is_told_and_served_once_it_is_free(world):
    world.serve(world.zone, world.addresses.zone4, 80, say_who)
    network = up(world, Port(HOST4, 8080, 80))
    assert network.engine is not None
    network.engine.stop()
    thief = world.on_host(lambda: socket.create_server((HOST4, 8080)))
    told = r"(Failed to bind port 8080 \(|Listen failed for HOST TCP port 203\.0\.113\.1/8080: )Address already in use"
    with thief, pytest.raises(EngineFault, match=told):
        world.on_host(network.revive)
    world.wait_until(lambda: not network.alive())  # so that whoever watches it tries again
    assert re.search(told, network.engine.last_words())
    world.on_host(network.revive)
    assert client_seen(world, world.outside, HOST4, 8080) == OUTSIDE4


def test_listeners_that_zoned_holds_serve_one_run_after_the_other(world, pasta):
    world.serve(world.zone, "0.0.0.0", 80, say_who)
    ports = [Port(HOST4, 8080, 80), Port(HOST4, 5353, 53, "udp")]
    held = [world.on_host(lambda port=port: listen_on("web", port)).listener for port in ports]
    for listener in held:
        world.stack.callback(listener.close)
    for vif in (VIF, "vif9.0"):
        if vif != VIF:
            world.replace_vif(vif)
            world.network.destroy()
            world.network = world.new_network(engine=PastaEngine(lambda: pasta))
        network = world.network
        world.on_host(network.create)
        network.use(zip(ports, held, strict=True))
        world.on_host(lambda network=network, vif=vif: network.attach(vif))
        world.on_host(network.serve)
        assert client_seen(world, world.outside, HOST4, 8080) == OUTSIDE4


def test_the_host_is_as_before(world):
    before = world.state_of_host()
    network = up(world, Port(HOST4, 8080, 80))
    during = world.state_of_host()
    assert {name: text for name, text in during.items() if name != "sockets"} == {
        name: text for name, text in before.items() if name != "sockets"
    }
    network.destroy()
    assert world.state_of_host() == before
