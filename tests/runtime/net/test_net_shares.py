"""Zones in one network: what one uses up is not another's, and what their name server says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from support.networld import BLACK_HOLE, BLACK_HOLE6, DNS4, HOST4, OUTSIDE4, OUTSIDE6, World
from support.sharedworld import Neighbour, SharedNetwork, reaches, status_of

from runtime.net.engine import packet
from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.model import Limits
from runtime.net.engine.pipes import PipePool, PipeShare

LIMITS = Limits(
    connections=4,
    pending=4,
    udp_flows=4,
    echoes=4,
    dns_pending=4,
    errors_per_s=5,
    connect_timeout_s=20,
    dns_try_s=0.3,
    dns_timeout_s=30.0,  # a loaded machine opens ten connections in more than the usual five
)


# A resolver is given as long as a busy machine takes for an answer.
PATIENT = Limits(dns_try_s=30, dns_timeout_s=90)
BOTH = pytest.mark.parametrize(("address", "hole"), [(OUTSIDE4, BLACK_HOLE), (OUTSIDE6, BLACK_HOLE6)])


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.fixture
def pair(world: World) -> tuple[Neighbour, Neighbour]:
    shared = SharedNetwork(world, limits=LIMITS)
    return shared.zone("greedy", 2), shared.zone("modest", 3)


def open_many(zone: Neighbour, kind: int, address: str, port: int, count: int) -> list[socket.socket]:
    made = []
    for _ in range(count):
        each = zone.inside(lambda: socket.socket(family_of(address), kind | socket.SOCK_NONBLOCK))
        each.connect_ex((address, port))
        if kind == socket.SOCK_DGRAM:
            each.send(b"x")
        made.append(each)
    return made


def connected(neighbour: Neighbour, address: str, port: int) -> socket.socket:
    """A connection that may be reset at once: before connect() has returned, which says so then, or after."""

    def connect() -> socket.socket:
        client = socket.socket(family_of(address))
        client.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            client.connect((address, port))
        return client

    return neighbour.inside(connect)


def close(many: list[socket.socket]) -> None:
    for each in many:
        each.close()


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
@pytest.mark.root
def test_connections_one_zone_holds_are_not_anothers(
    world: World, pair: tuple[Neighbour, Neighbour], address: str
) -> None:
    greedy, modest = pair
    world.meet()
    held = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"hi")
        held.wait(60)

    world.serve(world.outside, address, 8080, serve)
    many = open_many(greedy, socket.SOCK_STREAM, address, 8080, 10)
    try:
        world.wait_until(lambda: greedy.network.counters()["active"] == LIMITS.connections)
        world.wait_until(lambda: greedy.network.counters()["limited"] >= 6)
        assert greedy.network.counters()["active"] == LIMITS.connections
        assert reaches(modest, address, 8080) == b"hi"
        assert modest.network.counters()["limited"] == 0
    finally:
        held.set()
        close(many)


@pytest.mark.parametrize("hole", [BLACK_HOLE, BLACK_HOLE6])
@pytest.mark.root
def test_connects_under_way_of_one_zone_do_not_push_out_anothers(
    world: World, pair: tuple[Neighbour, Neighbour], hole: str
) -> None:
    greedy, modest = pair
    world.meet()
    waiting = open_many(modest, socket.SOCK_STREAM, hole, 80, 2)
    world.wait_until(lambda: modest.network.counters()["pending"] == 2)
    many = open_many(greedy, socket.SOCK_STREAM, hole, 80, 10)
    try:
        world.wait_until(lambda: greedy.network.counters()["limited"] >= 6)
        assert (greedy.network.counters()["pending"], modest.network.counters()["pending"]) == (LIMITS.pending, 2)
    finally:
        close(many + waiting)


@BOTH
@pytest.mark.root
def test_udp_flows_of_one_zone_do_not_push_out_anothers(
    world: World, pair: tuple[Neighbour, Neighbour], address: str, hole: str
) -> None:
    greedy, modest = pair
    world.meet()
    waiting = open_many(modest, socket.SOCK_DGRAM, address, 9999, 2)
    world.wait_until(lambda: modest.network.counters()["udp_active"] == 2)
    many = open_many(greedy, socket.SOCK_DGRAM, hole, 9999, 10)
    try:
        world.wait_until(lambda: greedy.network.counters()["limited"] >= 6)
        assert (greedy.network.counters()["udp_active"], modest.network.counters()["udp_active"]) == (4, 2)
    finally:
        close(many + waiting)


@pytest.mark.root
def test_pings_of_one_zone_do_not_make_anothers_be_forgotten(world: World, pair: tuple[Neighbour, Neighbour]) -> None:
    """The other's answer comes after the flood's requests, and is still known."""
    greedy, modest = pair
    world.shell(world.outside, "ip route add blackhole 10.75.0.0/16")
    output: list[str] = []
    asking = threading.Thread(
        target=lambda: output.append(world.shell(modest.namespace, f"ping -c 5 -i 0.2 -W 30 {OUTSIDE4}"))
    )
    asking.start()
    world.shell(greedy.namespace, f"ping -f -c 300 -W 1 {BLACK_HOLE} || true")
    asking.join()
    assert " 0% packet loss" in output[0]
    assert greedy.network.counters()["echoes"] > 50


def ask_once(zone: Neighbour) -> socket.socket:
    """An echo request of a zone's to the outside, and the socket that its answer comes to."""
    asking = zone.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    asking.settimeout(30)
    request = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + zone.name.encode()
    asking.sendto(request[:2] + packet.checksum(request).to_bytes(2, "big") + request[4:], (OUTSIDE4, 0))
    return asking


@pytest.mark.root
def test_answers_to_one_zone_do_not_fill_the_queue_for_anothers(
    world: World, pair: tuple[Neighbour, Neighbour]
) -> None:
    """While the engine stands still, as in a long turn: a host floods the zone that asked it."""
    greedy, _ = pair
    world.shell(world.outside, "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all")
    world.meet()
    engine = greedy.network.engine
    assert engine is not None
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(
            world.of(world.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        )
        host.settimeout(30)
        answers = []
        for zone in pair:
            asking = stack.enter_context(ask_once(zone))
            request = host.recv(2048)[20:]
            assert request.endswith(zone.name.encode())
            answer = bytes(4) + request[4:]
            answers.append(answer[:2] + packet.checksum(answer).to_bytes(2, "big") + answer[4:])
        assert answers[0][4:6] != answers[1][4:6], "each has its own identifier"
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            for answer in (*answers[:1] * 3000, answers[1]):
                host.sendto(answer, (HOST4, 0))
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        assert asking.recv(2048).endswith(b"modest")


@pytest.mark.root
def test_icmp_errors_one_zone_causes_are_not_taken_from_anothers(
    world: World, pair: tuple[Neighbour, Neighbour]
) -> None:
    greedy, modest = pair
    many = open_many(greedy, socket.SOCK_DGRAM, "169.254.169.254", 80, 50)  # closed: each is answered with an error
    try:
        world.wait_until(lambda: greedy.network.counters()["denied"] >= 50)
        with modest.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
            asking.settimeout(30)
            asking.connect(("169.254.169.254", 80))
            asking.send(b"x")
            with pytest.raises(OSError) as caught:
                asking.recv(1)
            assert not isinstance(caught.value, TimeoutError)
    finally:
        close(many)


@BOTH
@pytest.mark.root
def test_flood_of_syns_of_one_zone_does_not_fill_anothers_queue(
    world: World, pair: tuple[Neighbour, Neighbour], address: str, hole: str
) -> None:
    """While the engine stands still: what waits for it, waits in a queue of the zone's own."""
    greedy, modest = pair
    world.meet()
    world.serve(world.outside, address, 8080, lambda connection: connection.sendall(b"hi"))
    engine = greedy.network.engine
    assert engine is not None
    with world.one_syn_each(modest.namespace):
        os.kill(engine.pid, signal.SIGSTOP)
        try:
            many = open_many(greedy, socket.SOCK_STREAM, hole, 80, 900)
            one = open_many(modest, socket.SOCK_STREAM, address, 8080, 1)
            more = open_many(greedy, socket.SOCK_DGRAM, hole, 80, 900)
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        try:
            one[0].settimeout(30)
            assert one[0].recv(9) == b"hi"
        finally:
            close(many + one + more)


def test_pipes_are_shared_out_evenly() -> None:
    pool = PipePool(12)
    first = PipeShare(pool)
    taken = [first.take() for _ in range(13)]
    assert taken.count(None) == 1, "alone, it has all"
    for pipe in taken[6:12]:
        assert pipe is not None
        first.give(pipe)
    second, third = PipeShare(pool), PipeShare(pool)
    assert first.take() is None, "it has more than its share of four"
    for share in (second, third):
        own = [share.take() for _ in range(5)]
        taken += own
    assert second.take() is None
    third.close()
    assert pool.share == 6
    for pipe in taken[:6]:
        assert pipe is not None
        first.drop(pipe)
    again = first.take()
    assert again is not None
    for pipe in (again, *taken[13:]):
        if pipe is not None:
            pool.drop(pipe)
    pool.close()


def test_traffic_of_a_zone_names_its_pipes() -> None:
    share = PipeShare(PipePool(2))
    assert Traffic(Limits(), share).pipes is share


# -- names -------------------------------------------------------------------------------------------------------------


def query(name: str, kind: int = 1, identity: int = 0x4321) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def by_udp(zone: Neighbour, asked: bytes) -> bytes:
    with zone.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.settimeout(30)
        client.connect((zone.addresses.gateway4, 53))
        client.send(asked)
        return client.recv(4096)


def by_udp6(zone: Neighbour, asked: bytes) -> bytes:
    with zone.inside(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as client:
        client.settimeout(30)
        client.connect((zone.addresses.gateway6, 53))
        client.send(asked)
        return client.recv(4096)


def message(connection: socket.socket) -> bytes:
    (size,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
    return connection.recv(size, socket.MSG_WAITALL)


def by_tcp(zone: Neighbour, asked: bytes) -> bytes:
    with zone.inside(lambda: socket.create_connection((zone.addresses.gateway4, 53), 30)) as client:
        client.sendall(struct.pack("!H", len(asked)) + asked)
        return message(client)


@pytest.mark.root
@pytest.mark.parametrize("ask", [by_udp, by_udp6, by_tcp])
def test_zones_find_each_other_by_name(
    pair: tuple[Neighbour, Neighbour], ask: Callable[[Neighbour, bytes], bytes]
) -> None:
    greedy, modest = pair
    answer = ask(greedy, query("modest"))
    assert answer[:4] == b"\x43\x21\x85\x80"
    assert answer.endswith(socket.inet_aton(modest.addresses.zone4))
    assert ask(greedy, query("modest", 28)).endswith(socket.inet_pton(socket.AF_INET6, modest.addresses.zone6))
    assert greedy.network.counters()["dns_queries"] == 2
    assert modest.network.counters()["dns_queries"] == 0


@pytest.mark.root
def test_name_of_a_zone_that_left_or_is_elsewhere_is_not_known(world: World, pair: tuple[Neighbour, Neighbour]) -> None:
    greedy, modest = pair
    elsewhere = world.up()
    modest.network.destroy()
    for name in ("modest", elsewhere.name):
        assert by_udp(greedy, query(name))[3] & 15 == 2, "no resolver of the host's answers here: SERVFAIL"


class Resolver:
    """A resolver of the host's, over TCP, that answers with what it was asked and a mark; silent while `hangs`."""

    def __init__(self, world: World) -> None:
        self.asked: list[bytes] = []
        world.resolv_conf.write_text(f"nameserver {DNS4}\n")
        world.serve(world.outside, DNS4, 53, self._serve)

    def _serve(self, connection: socket.socket) -> None:
        asked = message(connection)
        self.asked.append(asked)
        answer = asked[:2] + b"\x81\x80" + asked[4:] + b"mark"
        for byte in struct.pack("!H", len(answer)) + answer:
            connection.sendall(bytes([byte]))


@pytest.mark.root
def test_queries_of_both_kinds_share_a_connection_and_are_answered_in_order(world: World) -> None:
    resolver = Resolver(world)
    shared = SharedNetwork(world, limits=PATIENT)
    web, _ = shared.zone("web", 2), shared.zone("db", 3)
    outside = query("example.org", identity=1)
    stream = [query("db", identity=0), outside, query("web", identity=2), query("example.org", identity=3)]
    with web.inside(lambda: socket.create_connection((web.addresses.gateway4, 53), 30)) as client:
        for byte in b"".join(struct.pack("!H", len(item)) + item for item in stream):
            client.sendall(bytes([byte]))
        answers = [message(client) for _ in stream]
    assert [int.from_bytes(answer[:2], "big") for answer in answers] == [0, 1, 2, 3]
    assert [answer.endswith(b"mark") for answer in answers] == [False, True, False, True]
    assert answers[0].endswith(socket.inet_aton("10.75.9.3"))
    assert resolver.asked == [outside, stream[3]]
    assert web.network.counters()["faults"] == 0


@pytest.mark.root
def test_resolver_that_refuses_tcp_becomes_servfail_and_the_connection_goes_on(world: World) -> None:
    world.resolv_conf.write_text(f"nameserver {OUTSIDE4}\n")
    shared = SharedNetwork(world, limits=PATIENT)
    web = shared.zone("web", 2)
    with web.inside(lambda: socket.create_connection((web.addresses.gateway4, 53), 30)) as client:
        for name, code in (("example.org", 2), ("web", 0)):
            asked = query(name)
            client.sendall(struct.pack("!H", len(asked)) + asked)
            assert message(client)[3] & 15 == code
    assert web.network.counters()["dns_failed"] == 1


@pytest.mark.root
def test_silent_resolver_is_followed_by_the_next(world: World) -> None:
    resolver = Resolver(world)
    world.resolv_conf.write_text(f"nameserver {BLACK_HOLE}\nnameserver {DNS4}\n")
    shared = SharedNetwork(world, limits=Limits(dns_try_s=3, dns_timeout_s=90))
    web = shared.zone("web", 2)
    started = time.monotonic()
    assert by_tcp(web, query("example.org")).endswith(b"mark")
    assert time.monotonic() - started > 2.9
    assert len(resolver.asked) == 1


@pytest.mark.root
def test_dns_connections_of_one_zone_are_not_anothers(pair: tuple[Neighbour, Neighbour]) -> None:
    greedy, modest = pair
    many = [connected(greedy, greedy.addresses.gateway4, 53) for _ in range(10)]
    try:
        assert by_tcp(modest, query("greedy")).endswith(socket.inet_aton(greedy.addresses.zone4))
        many[0].settimeout(20)
        asked = query("modest")
        many[0].sendall(struct.pack("!H", len(asked)) + asked)
        assert message(many[0])
        assert greedy.network.counters()["limited"] == 6
    finally:
        close(many)


@pytest.mark.root
def test_rubbish_on_a_dns_connection_ends_it_and_harms_nobody(pair: tuple[Neighbour, Neighbour]) -> None:
    greedy, modest = pair
    for rubbish in (b"\0\0", b"\0\5hello", b"\0\x0c" + b"\x12\x34\x81\x80" + bytes(8)):
        with greedy.inside(lambda: socket.create_connection((greedy.addresses.gateway4, 53), 30)) as client:
            client.sendall(rubbish)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert by_tcp(modest, query("greedy"))
    assert greedy.network.counters()["faults"] == 0


FLOOD = """
import socket, sys
hole, outside = sys.argv[1:]
family = socket.AF_INET6 if ":" in hole else socket.AF_INET
held, number = [], 0
while True:
    for address in (hole, outside):
        each = socket.socket(family)
        each.setblocking(False)
        each.connect_ex((address, 9))
        held.append(each)
    del held[:-400]
"""


@BOTH
@pytest.mark.root
def test_flood_of_connects_in_a_shared_engine_is_bounded_and_leaves_nothing(
    world: World, address: str, hole: str
) -> None:
    """As fast as a zone can, to a port that refuses and to a black hole; what it costs others is `./doit bench net`."""
    limits = Limits(connect_timeout_s=1.5)
    shared = SharedNetwork(world, limits=limits)
    greedy, modest = shared.zone("greedy", 2), shared.zone("modest", 3)
    world.serve(world.outside, address, 8080, lambda connection: connection.sendall(b"hi"))
    world.meet()
    engine = shared.segment.engine
    assert engine is not None
    assert reaches(modest, address, 8080) == b"hi"

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{engine.pid}/fd"))

    def resident_kib() -> int:
        return int(status_of(engine.pid)["VmRSS"].split()[0])

    settled, before_kib = descriptors(), resident_kib()
    process = greedy.inside(lambda: subprocess.Popen([sys.executable, "-c", FLOOD, hole, address]))
    try:
        world.wait_until(lambda: greedy.network.counters()["limited"] > 2000, 60)
        most = max(descriptors() for _ in range(200))
        for _ in range(10):
            assert reaches(modest, address, 8080) == b"hi"
        assert process.poll() is None
        assert most <= settled + limits.pending + 32
        assert resident_kib() - before_kib < 16 << 10
    finally:
        process.kill()
        process.wait()
    world.wait_until(lambda: descriptors() <= settled + 2 and greedy.network.counters()["pending"] == 0, 30)
    counters = modest.network.counters()
    assert (counters["limited"], counters["faults"]) == (0, 0)
