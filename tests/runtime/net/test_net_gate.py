"""The SYN gate for real: a zone sees of the outside what it would see without anything between."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.networld import BLACK_HOLE, BLACK_HOLE6, OUTSIDE4, OUTSIDE6, World, digest_then_echo, receive_all

from runtime.net.engine.model import Limits

pytestmark = pytest.mark.root

SYN = 2
SYN_SENT = 2  # the first byte of struct tcp_info: linux/tcp.h, net/tcp_states.h
NOWHERE4, NOWHERE6 = "192.0.2.77", "2001:db8:77::1"
QUICK_S = 0.5
BOTH = pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
HOLES = pytest.mark.parametrize("hole", [BLACK_HOLE, BLACK_HOLE6])
BOTH_HOLES = pytest.mark.parametrize(("address", "hole"), [(OUTSIDE4, BLACK_HOLE), (OUTSIDE6, BLACK_HOLE6)])


def state_of(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def begin(world: World, address: str, port: int) -> socket.socket:
    """A connection of the zone under way."""

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setblocking(False)
        assert made.connect_ex((address, port)) == errno.EINPROGRESS
        return made

    return world.in_zone(connect)


def comes_about(connection: socket.socket, timeout_s: float) -> bool:
    """Is a connection under way made in time?"""
    _, writable, _ = select.select([], [connection], [], timeout_s)
    return bool(writable) and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def failure_of(world: World, address: str, port: int) -> int:
    """errno of a connection that fails at once: no SYN is sent again, neither the zone's nor the host's."""
    with world.one_syn_each(world.zone, world.host), pytest.raises(OSError) as caught:
        world.connect(address, port)
    return caught.value.errno or errno.ETIMEDOUT


@contextmanager
def syns_seen(world: World, name: str, device: str) -> Iterator[list[tuple[bytes, bytes]]]:
    """SYNs that leave through a device meanwhile: (source port, destination)."""
    seen: list[tuple[bytes, bytes]] = []
    raw = world.of(name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
    raw.bind((device, 3))
    raw.settimeout(0.1)
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                packet, origin = raw.recvfrom(4096)
            except TimeoutError:
                continue
            v6 = packet[0] >> 4 == 6
            segment = packet[40:] if v6 else packet[20:]
            is_syn = packet[6 if v6 else 9] == socket.IPPROTO_TCP and segment[13] == SYN
            if origin[2] == socket.PACKET_OUTGOING and is_syn:
                seen.append((segment[:2], packet[24:40] if v6 else packet[16:20]))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        raw.close()


@BOTH
def test_refused_is_refused_and_at_once(world: World, address: str) -> None:
    network = world.up()
    world.meet()
    assert failure_of(world, address, 9) == errno.ECONNREFUSED
    counters = network.counters()
    assert (counters["accepted"], counters["failed"], counters["faults"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("address", "route", "expected"),
    [
        (NOWHERE4, "route add unreachable 192.0.2.0/24", errno.EHOSTUNREACH),
        (NOWHERE6, "route add unreachable 2001:db8:77::/48", errno.EHOSTUNREACH),
        (NOWHERE4, "route del default", errno.ENETUNREACH),
        (NOWHERE6, "route show", errno.ENETUNREACH),
    ],
)
def test_unreachable_of_the_host_is_unreachable_in_the_zone(
    world: World, address: str, route: str, expected: int
) -> None:
    world.up()
    world.ip(world.host, route)
    assert failure_of(world, address, 80) == expected


@pytest.mark.parametrize("address", [NOWHERE4, NOWHERE6])
def test_unreachable_of_a_router_far_away_is_unreachable_in_the_zone(world: World, address: str) -> None:
    """The router answers with ICMP; nothing on this host knows that the way ends there."""
    world.shell(world.outside, "cd /proc/sys/net; echo 1 > ipv4/ip_forward; echo 1 > ipv6/conf/all/forwarding")
    world.ip(world.host, f"route add ::/0 via {OUTSIDE6}")
    network = world.up()
    world.meet()
    assert failure_of(world, address, 80) == errno.ENETUNREACH
    assert network.counters()["failed"] == 1


@BOTH_HOLES
def test_black_hole_stays_without_an_answer_and_delays_nobody_else(world: World, address: str, hole: str) -> None:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    world.network = world.new_network(limits=Limits(connect_timeout_s=300))
    network = world.up()
    world.meet()
    holes = [begin(world, hole, 80) for _ in range(20)]
    times: list[float] = []

    def quick() -> bool:
        """Ten more; a busy machine may need some for it."""
        for _ in range(10):
            started = time.monotonic()
            with world.connect(address, port) as connection:
                connection.sendall(b"quick")
                connection.shutdown(socket.SHUT_WR)
                assert receive_all(connection)[32:] == b"quick"
            times.append(time.monotonic() - started)
        return sorted(times[-10:])[5] < QUICK_S

    world.wait_until(quick)
    assert [state_of(each) for each in holes] == [SYN_SENT] * 20
    counters = network.counters()
    assert (counters["accepted"], counters["pending"]) == (len(times), 20)
    for each in holes:
        each.close()


@HOLES
def test_connect_that_is_given_up_leaves_the_zone_waiting(world: World, hole: str) -> None:
    network = world.up()  # gives up after 1.5 s
    with begin(world, hole, 80) as connection:
        world.wait_until(lambda: network.counters()["pending"] == 1)
        world.wait_until(lambda: network.counters()["failed"] >= 1)
        assert state_of(connection) == SYN_SENT


@HOLES
def test_syn_sent_again_makes_no_second_connect(world: World, hole: str) -> None:
    world.network = world.new_network(limits=Limits(connect_timeout_s=30))
    network = world.up()
    world.meet()
    with (
        syns_seen(world, world.zone, "eth0") as of_zone,
        syns_seen(world, world.host, "up0") as of_host,
        begin(world, hole, 80),
    ):
        world.wait_until(lambda: len(of_zone) >= 3)
        assert network.counters()["pending"] == 1
    assert {destination for _, destination in of_host} == {packed(hole)}
    assert len({port for port, _ in of_host}) == 1


@BOTH
def test_outer_connection_that_comes_late_is_the_zones_own(world: World, address: str) -> None:
    """The zone's SYN-ACK comes when the outer one does, not before; its retransmissions meanwhile do no harm."""
    port = world.serve(world.outside, address, 0, digest_then_echo)
    world.meet()
    rule = "table inet t { chain c { type filter hook input priority 0; policy accept; tcp flags syn drop; }; }"
    world.shell(world.outside, f"nft '{rule}'")
    world.network = world.new_network(limits=Limits(connect_timeout_s=30))
    network = world.up()
    with syns_seen(world, world.zone, "eth0") as of_zone, begin(world, address, port) as connection:
        world.wait_until(lambda: len(of_zone) >= 2)
        assert state_of(connection) == SYN_SENT
        world.shell(world.outside, "nft flush ruleset")
        assert comes_about(connection, 60)
        connection.settimeout(60)
        connection.sendall(b"late")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection)[32:] == b"late"
    counters = network.counters()
    assert (counters["accepted"], counters["failed"], counters["pending"]) == (1, 0, 0)


@BOTH_HOLES
def test_pending_connects_beyond_the_limit_replace_the_oldest(world: World, address: str, hole: str) -> None:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    world.network = world.new_network(limits=Limits(connect_timeout_s=30, pending=4))
    network = world.up()
    world.meet()
    holes = [begin(world, hole, 1000 + number) for number in range(12)]
    world.wait_until(lambda: network.counters()["limited"] >= 8)

    def quick() -> bool:
        try:
            world.connect(address, port, timeout_s=QUICK_S).close()
        except TimeoutError:
            return False  # as on a busy machine, now and then
        return True

    world.wait_until(quick)
    assert network.counters()["pending"] <= 4
    for each in holes:
        each.close()


@BOTH
def test_egress_rules_are_asked_by_port(world: World, address: str) -> None:
    closed = world.serve(world.outside, address, 0, digest_then_echo)
    opened = world.serve(world.outside, address, 0, digest_then_echo)
    world.network = world.new_network(egress=(f"deny 0.0.0.0/0 {closed}", f"deny ::/0 {closed}"))
    network = world.up()
    assert failure_of(world, address, closed) == errno.ECONNREFUSED
    world.connect(address, opened).close()
    assert network.counters()["denied"] == 1


@BOTH
def test_connection_whose_engine_died_ends(world: World, address: str) -> None:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    network = world.up()
    with world.connect(address, port) as connection:
        world.wait_until(lambda: network.counters()["active"] == 1)
        assert network.engine is not None
        network.engine.stop()
        connection.settimeout(30)
        assert connection.recv(1) == b""


@BOTH
def test_connect_made_while_no_engine_runs_waits_for_the_next(world: World, address: str) -> None:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    network = world.up()
    world.meet()
    assert network.engine is not None
    network.engine.stop()
    with world.one_syn_each(world.zone), begin(world, address, port) as connection:
        world.on_host(network.revive)
        assert comes_about(connection, 30)


FLOOD = """
import socket, sys, time
hole, outside = sys.argv[1:]
family = socket.AF_INET6 if ":" in hole else socket.AF_INET
many, held, number = socket.socket(family, socket.SOCK_DGRAM), [], 0
while True:
    held = [*held[-400:], socket.socket(family)]
    held[-1].setblocking(False)
    held[-1].connect_ex((hole, 80))
    for _ in range(5):
        number += 1
        many.sendto(b"f", (outside, 1024 + number % 60000))
    time.sleep(0.0005)
"""


@BOTH_HOLES
def test_flood_and_black_holes_of_one_zone_are_not_felt_by_another(world: World, address: str, hole: str) -> None:
    port = world.serve(world.outside, address, 0, digest_then_echo)
    world.network = world.new_network(limits=Limits())
    flooded = world.up()
    world.meet()
    other, name = world.neighbour()
    flood = [sys.executable, "-c", FLOOD, hole, address]
    process = world.in_zone(lambda: subprocess.Popen(flood))
    try:
        world.wait_until(lambda: flooded.counters()["limited"] > 500)
        times: list[float] = []

        def quick() -> bool:
            """Forty more; a busy machine may need some for it."""
            for _ in range(40):
                started = time.monotonic()
                world.of(name, lambda: socket.create_connection((address, port), 30)).close()
                times.append(time.monotonic() - started)
            return sorted(times[-40:])[20] < 0.1

        world.wait_until(quick)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    world.wait_until(lambda: other.counters()["accepted"] == len(times))
    assert (other.counters()["limited"], other.counters()["faults"]) == (0, 0)
    assert flooded.counters()["faults"] == 0
