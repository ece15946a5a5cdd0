"""The proxy engine for real: a zone, a host and an outside in network namespaces of this machine."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
from pathlib import Path

import pytest
from support.networld import (
    DNS4,
    HOST4,
    HOST6,
    OUTSIDE4,
    OUTSIDE6,
    World,
    digest_then_echo,
    receive_all,
)

from pipeline.bundle.model import Port
from runtime.net.engine.model import Limits
from runtime.net.engine.placement import STREAM_BYTES

pytestmark = pytest.mark.root

PAYLOAD = os.urandom(3_000_017)


def exchange(connection: socket.socket, payload: bytes) -> bytes:
    """Send everything, half-close, read everything."""
    with connection:
        connection.settimeout(60)
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)
        return receive_all(connection)


def ping(source_family: int, address: str, *, timeout_s: float = 30.0) -> bool:
    """One ICMP echo from the calling thread's namespace; is it answered?"""
    data = b"zonewright"
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
    v6 = source_family == socket.AF_INET6
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    with socket.socket(source_family, socket.SOCK_DGRAM, protocol) as echo:
        echo.settimeout(timeout_s)
        echo.connect((address, 0))
        try:
            echo.send(struct.pack("!BBHHH", 128 if v6 else 8, 0, 0, 0, 1) + data)
            return echo.recv(4096)[8:] == data
        except OSError:
            return False


def ends_in_reset(connection: socket.socket) -> bool:
    with connection:
        connection.settimeout(60)
        try:
            connection.recv(1)
        except ConnectionResetError:
            return True
        return False


def refused(world: World, address: str, port: int) -> bool:
    """Is a connection of the zone refused before it is one?"""
    try:
        world.connect(address, port).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_bytes_and_half_close_pass_both_ways(world: World, address: str) -> None:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    network = world.up()
    answer = exchange(world.connect(address, port), PAYLOAD)
    assert answer[:32] == hashlib.sha256(PAYLOAD).digest()
    assert answer[32:] == PAYLOAD
    counters = network.counters()
    assert counters["accepted"] == 1
    assert counters["bytes_up"] == len(PAYLOAD)
    assert counters["bytes_down"] == len(PAYLOAD) + 32
    assert counters["faults"] == 0


def test_engine_keeps_away_from_the_cpu_on_which_a_stream_comes_in(world: World) -> None:
    network = world.up()
    assert network.engine is not None
    pid = network.engine.pid
    usual = os.sched_getaffinity(pid)
    places: list[set[int]] = []

    def take(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            places.append(os.sched_getaffinity(pid))
        connection.sendall(b"all")

    world.serve(world.outside, OUTSIDE4, 8080, take)
    with world.connect(OUTSIDE4, 8080) as connection:
        connection.sendall(bytes(8 * STREAM_BYTES))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(3, socket.MSG_WAITALL) == b"all"
    assert places[0] == usual
    assert len(usual) == 1 or any(place < usual for place in places)


def test_half_close_of_the_server_leaves_the_zone_sending(world: World) -> None:
    received: list[bytes] = []
    done = threading.Event()

    def server(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        received.append(receive_all(connection))
        done.set()

    port = world.serve(world.outside, OUTSIDE4, 0, server)
    world.up()
    with world.connect(OUTSIDE4, port) as connection:
        assert receive_all(connection) == b"bye"
        connection.sendall(PAYLOAD)
    assert done.wait(60)
    assert received == [PAYLOAD]


def test_reset_of_the_server_reaches_the_zone(world: World) -> None:
    def server(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    port = world.serve(world.outside, OUTSIDE4, 0, server)
    world.up()
    connection = world.connect(OUTSIDE4, port)
    connection.sendall(b"x")
    assert ends_in_reset(connection)


def test_reader_that_stops_bounds_what_the_engine_holds(world: World) -> None:
    release = threading.Event()
    lengths: list[int] = []

    def server(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        release.wait(60)
        lengths.append(len(receive_all(connection)))
        connection.sendall(b"got it")

    port = world.serve(world.outside, OUTSIDE4, 0, server)
    network = world.up()
    connection = world.connect(OUTSIDE4, port)
    connection.settimeout(1)
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += connection.send(bytes(1 << 16))
    pid = next(record["pid"] for record in world.records if record["kind"] == "net.engine")
    status = Path(f"/proc/{pid}/status").read_text()
    resident_kib = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kib < 40_000
    release.set()
    connection.settimeout(60)
    connection.shutdown(socket.SHUT_WR)
    assert receive_all(connection) == b"got it"
    assert lengths == [sent]
    assert network.counters()["bytes_up"] == sent


def test_connections_beyond_the_limit_are_refused_and_the_others_go_on(world: World) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    world.network = world.new_network(limits=Limits(connections=2))
    network = world.up()
    held = [world.connect(OUTSIDE4, port) for _ in range(2)]
    assert refused(world, OUTSIDE4, port)
    assert network.counters()["limited"] == 1
    assert [exchange(connection, b"still")[32:] for connection in held] == [b"still", b"still"]
    assert exchange(world.connect(OUTSIDE4, port), b"again")[32:] == b"again"


def test_many_connections_leave_no_descriptor_behind(world: World) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    network = world.up()
    pid = next(record["pid"] for record in world.records if record["kind"] == "net.engine")
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for number in range(60):
        if number % 3 == 0:
            refused(world, OUTSIDE4, 9)
        elif number % 3 == 1:
            world.connect(OUTSIDE4, port).close()
        else:
            exchange(world.connect(OUTSIDE4, port), b"x")
    world.wait_until(lambda: network.counters()["active"] == 0)
    assert len(os.listdir(f"/proc/{pid}/fd")) <= before + 1  # the control client of a moment ago


def test_gateway_answers_ping_in_both_families_also_without_the_engine(world: World) -> None:
    network = world.up()
    gateways = ((socket.AF_INET, world.addresses.gateway4), (socket.AF_INET6, world.addresses.gateway6))
    assert [world.in_zone(lambda g=gateway: ping(*g)) for gateway in gateways] == [True, True]
    pid = next(record["pid"] for record in world.records if record["kind"] == "net.engine")
    os.kill(pid, 9)
    world.wait_until(lambda: not network.alive())
    assert [world.in_zone(lambda g=gateway: ping(*g)) for gateway in gateways] == [True, True]


def test_neighbour_probe_from_the_link_local_address_is_answered(world: World) -> None:
    """Linux probes a known neighbour from its link-local address; unanswered, the gateway would be lost every 30 s."""
    world.up()
    gateway = world.addresses.gateway6
    assert world.in_zone(lambda: ping(socket.AF_INET6, gateway))
    mac = world.addresses.gateway_mac
    world.ip(world.zone, f"neigh change {gateway} lladdr {mac} dev eth0 nud probe")
    world.wait_until(lambda: "REACHABLE" in world.shell(world.zone, f"ip neigh show {gateway}"))


@pytest.mark.parametrize("family", ["4", "6"])
def test_gateway_finds_the_zone_by_itself_when_it_answers_for_the_outside(world: World, family: str) -> None:
    """A zone that knows its gateway asks nothing that would tell the gateway where the zone is."""
    outside = OUTSIDE4 if family == "4" else OUTSIDE6
    port = world.serve(world.outside, outside, 0, digest_then_echo)
    world.up()
    gateway = getattr(world.addresses, f"gateway{family}")
    world.ip(world.zone, f"neigh replace {gateway} lladdr {world.addresses.gateway_mac} dev eth0 nud permanent")
    assert (
        world.shell(world.network.netns, f"ip -{family} neigh show {getattr(world.addresses, f'zone{family}')}") == ""
    )
    assert exchange(world.connect(outside, port), b"found")[32:] == b"found"


SPOOFED4, SPOOFED6 = "10.75.7.66", "fd5a:6f6e:6577:7::66"


def test_packets_from_spoofed_addresses_are_dropped(world: World) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    port6 = world.serve(world.outside, OUTSIDE6, 0, digest_then_echo)
    network = world.up()
    zone = world.addresses
    world.ip(world.zone, f"address add {SPOOFED4}/24 dev eth0", f"address add {SPOOFED6}/64 dev eth0 nodad")
    # Known neighbours: it is the packets that must be dropped, not only the zone's ARP and ND.
    for address in (SPOOFED4, SPOOFED6):
        world.ip(network.netns, f"neigh add {address} lladdr {zone.zone_mac} dev zw0 nud permanent")
    for address in (zone.gateway4, zone.gateway6):
        world.ip(world.zone, f"neigh replace {address} lladdr {zone.gateway_mac} dev eth0 nud permanent")
    for destination, number, source in ((OUTSIDE4, port, SPOOFED4), (OUTSIDE6, port6, SPOOFED6)):
        with pytest.raises(TimeoutError):
            world.connect(destination, number, source=source, timeout_s=1)
    assert network.counters()["accepted"] == 0
    assert exchange(world.connect(OUTSIDE4, port, source=zone.zone4), b"own")[32:] == b"own"
    assert exchange(world.connect(OUTSIDE6, port6, source=zone.zone6), b"own")[32:] == b"own"


def test_frames_from_a_spoofed_mac_are_dropped(world: World) -> None:
    network = world.up()
    zone, spoofed = world.addresses, "00:16:3e:4b:63:63"
    # Known neighbours on both sides, for the same reason.
    world.ip(network.netns, f"neigh replace {zone.zone4} lladdr {spoofed} dev zw0 nud permanent")
    world.ip(world.zone, f"link set eth0 address {spoofed}")
    world.ip(world.zone, f"neigh replace {zone.gateway4} lladdr {zone.gateway_mac} dev eth0 nud permanent")
    assert not world.in_zone(lambda: ping(socket.AF_INET, zone.gateway4, timeout_s=2))
    world.ip(network.netns, f"neigh replace {zone.zone4} lladdr {zone.zone_mac} dev zw0 nud permanent")
    world.ip(world.zone, f"link set eth0 address {zone.zone_mac}")
    world.ip(world.zone, f"neigh replace {zone.gateway4} lladdr {zone.gateway_mac} dev eth0 nud permanent")
    assert world.in_zone(lambda: ping(socket.AF_INET, zone.gateway4))


def test_gateway_learns_no_neighbour_but_the_zone(world: World) -> None:
    network = world.up()
    gateways = world.addresses.gateway4, world.addresses.gateway6
    world.ip(world.zone, f"address add {SPOOFED4}/24 dev eth0", f"address add {SPOOFED6}/64 dev eth0 nodad")
    for gateway, source in zip(gateways, (SPOOFED4, SPOOFED6), strict=True):
        with pytest.raises(OSError):
            world.connect(gateway, 80, source=source, timeout_s=0.5)
    assert world.in_zone(lambda: ping(socket.AF_INET, gateways[0]))
    known = {line.split()[0] for line in world.shell(network.netns, "ip neigh show").splitlines()}
    own = {world.addresses.zone4, world.addresses.zone6, world.addresses.zone_link_local}
    assert {world.addresses.zone4} <= known <= own


def test_changing_source_addresses_do_not_fill_the_bridge(world: World) -> None:
    world.up()

    def flood() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for number in range(2000):
                raw.send(b"\x02\x7a\x77\0\0\x01" + struct.pack("!HI", 0x0216, number) + b"\x08\0" + bytes(50))

    world.in_zone(flood)
    learned = world.shell(world.network.netns, "bridge fdb show br zw0 | grep -c 02:16: || true")
    assert learned.strip() == "0"


@pytest.mark.parametrize(
    "address", [HOST4, "203.0.113.9", HOST6, "169.254.169.254", "10.75.8.2", "fd00:ec2::254", "fd5a:6f6e:6577:8::2"]
)
def test_closed_destinations_are_refused_although_something_listens(world: World, address: str) -> None:
    network = world.up()
    if address in (HOST4, "203.0.113.9", HOST6):  # the second one is a secondary address
        world.serve(world.host, address, 8080, digest_then_echo)
    else:
        world.ip(world.outside, f"address add {address} dev out0{' nodad' if ':' in address else ''}")
        world.serve(world.outside, address, 8080, digest_then_echo)
        if ":" in address:
            world.ip(world.host, f"route add ::/0 via {OUTSIDE6}")
    assert refused(world, address, 8080)
    counters = network.counters()
    assert (counters["accepted"], counters["denied"]) == (0, 1)


def test_network_denied_by_configuration_is_refused(world: World) -> None:
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    world.network = world.new_network(deny=("203.0.113.0/24",))
    network = world.up()
    assert refused(world, OUTSIDE4, port)
    assert network.counters()["denied"] == 1


def test_gateway_serves_nothing_but_dns(world: World) -> None:
    network = world.up()
    port = world.serve(world.host, "127.0.0.1", 0, digest_then_echo)
    for address in (world.addresses.gateway4, world.addresses.gateway6):
        with pytest.raises(ConnectionRefusedError):
            world.connect(address, port)
    assert network.counters()["denied"] == 2


def test_host_without_ipv6_refuses_it_at_once_before_the_connect(world: World) -> None:
    world.ip(world.host, f"address del {HOST6}/64 dev up0")
    world.up()
    with pytest.raises(OSError) as caught:
        world.connect("2001:db8:2::1", 80)
    assert not isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize(("host", "zone_listens"), [(HOST4, "zone4"), (HOST6, "zone6"), (HOST6, "zone4")])
def test_published_port_leads_to_the_zone(world: World, host: str, zone_listens: str) -> None:
    world.serve(world.zone, getattr(world.addresses, zone_listens), 80, digest_then_echo)
    network = world.up()
    ((address, port),) = world.on_host(lambda: network.publish([Port(host, 0, 80)]))
    client = world.of(world.outside, lambda: socket.create_connection((address, port), 30))
    assert exchange(client, PAYLOAD)[32:] == PAYLOAD
    counters = network.counters()
    assert (counters["published"], counters["bytes_down"]) == (1, len(PAYLOAD))


def test_published_server_may_speak_first(world: World) -> None:
    def server(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        connection.sendall(connection.recv(100).upper())

    world.serve(world.zone, "0.0.0.0", 25, server)
    network = world.up()
    ((address, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 25)]))
    with world.of(world.outside, lambda: socket.create_connection((address, port), 30)) as client:
        assert client.recv(100) == b"220 hello\r\n"
        client.sendall(b"quit")
        assert client.recv(100) == b"QUIT"


def test_published_port_without_a_listener_in_the_zone_is_reset(world: World) -> None:
    network = world.up()
    ((address, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    assert not network.answers(80)
    try:
        client = world.of(world.outside, lambda: socket.create_connection((address, port), 30))
    except ConnectionResetError:
        pass  # the reset may be there before connect() has returned
    else:
        assert ends_in_reset(client)
    world.serve(world.zone, "0.0.0.0", 80, digest_then_echo)
    assert network.answers(80)


def test_unpublished_port_is_free_again(world: World) -> None:
    network = world.up()
    ((address, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    network.unpublish(address, port)
    with pytest.raises(ConnectionRefusedError):
        world.of(world.outside, lambda: socket.create_connection((address, port), 30))
    world.on_host(lambda: network.publish([Port(HOST4, port, 80)]))


QUESTION = b"\x07example\x03org\0\0\1\0\1"
QUERY = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + QUESTION
ANSWER = b"\x81\x80\0\1\0\1\0\0\0\0" + QUESTION + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"


def ask_gateway(world: World, gateway: str, query: bytes = QUERY) -> bytes:
    def ask() -> bytes:
        with socket.socket(socket.AF_INET6 if ":" in gateway else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.connect((gateway, 53))
            client.send(query)
            return client.recv(4096)

    return world.in_zone(ask)


@pytest.mark.parametrize("gateway", ["gateway4", "gateway6"])
def test_dns_over_udp_passes_by_a_silent_resolver_and_keeps_the_zones_id(world: World, gateway: str) -> None:
    seen: list[bytes] = []
    server = world.of(world.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind((DNS4, 53))

    def answer() -> None:
        while (came := server.recvfrom(4096))[0] != b"stop":
            query, client = came
            seen.append(query)
            server.sendto(bytes(2) + ANSWER if query[:2] != b"\0\0" else b"\1\1" + ANSWER, client)  # a wrong ID first
            server.sendto(query[:2] + ANSWER, client)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    world.network = world.new_network(limits=Limits(dns_try_s=1.5, dns_timeout_s=60))
    world.up()
    assert ask_gateway(world, getattr(world.addresses, gateway)) == b"\x12\x34" + ANSWER
    server.sendto(b"stop", server.getsockname())
    thread.join()
    server.close()
    assert seen[0][2:] == QUERY[2:]


def test_dns_without_any_answer_becomes_servfail_with_the_question(world: World) -> None:
    network = world.up()
    answer = ask_gateway(world, world.addresses.gateway4)
    assert answer[:2] == b"\x12\x34"
    assert answer[2] & 0x80
    assert answer[3] & 0x0F == 2
    assert answer[12:] == QUESTION
    assert network.counters()["dns_failed"] == 1


def test_dns_rubbish_gets_no_answer_and_harms_nobody(world: World) -> None:
    network = world.up()
    for rubbish in (b"", b"\0" * 5, b"\x12\x34\x81\x80" + bytes(8), bytes(2) + b"\1\0" + bytes(8) + b"\xff" * 40):
        with pytest.raises(TimeoutError):
            world.in_zone(lambda r=rubbish: _send_and_wait(world.addresses.gateway4, r))
    assert network.alive()
    assert network.counters()["faults"] == 0


def _send_and_wait(gateway: str, message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        client.connect((gateway, 53))
        client.send(message)
        return client.recv(4096)


def test_dns_over_tcp_reaches_the_resolver(world: World) -> None:
    def server(connection: socket.socket) -> None:
        query = connection.recv(4096)
        reply = query[2:4] + ANSWER
        connection.sendall(struct.pack("!H", len(reply)) + reply)

    world.resolv_conf.write_text(f"search example.org\nnameserver {DNS4}\n")
    world.serve(world.outside, DNS4, 53, server)
    world.network = world.new_network(limits=Limits(dns_try_s=30, dns_timeout_s=90))
    world.up()
    with world.connect(world.addresses.gateway4, 53) as client:
        client.sendall(struct.pack("!H", len(QUERY)) + QUERY)
        client.shutdown(socket.SHUT_WR)  # it asks no more: the answer comes all the same, then the end
        assert receive_all(client)[2:] == b"\x12\x34" + ANSWER
