"""A bandwidth limit for real: the rate holds both ways, and the same way carries far more without it.

Only ratios to the limit are looked at, behind the first bytes, which a full bucket lets pass. Of TCP by the count of
the zone's kernel: what waits in buffers behind the limit, because a busy machine has not read it yet, must not count.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable

import pytest
from support.networld import OUTSIDE4, World
from support.rates import (
    FREE,
    LEAST,
    LIMIT_BIT_S,
    MOST,
    MOST_BY_COUNT,
    SLOW_BIT_S,
    assert_rate,
    drained,
    flowing,
    rate_at,
    rate_of,
    tcp_rate,
)

from pipeline.bundle.model import Port
from runtime.net.bandwidth import device_of
from runtime.net.errors import NetworkFault
from runtime.net.network import ZoneNetwork

pytestmark = pytest.mark.root

PAYLOAD = 1400

Measure = Callable[[World], float]


def tcp_pair(world: World) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection the zone makes: the zone's, the outside's."""
    with world.of(world.outside, lambda: socket.create_server((OUTSIDE4, 0))) as listener:
        listener.settimeout(20)
        zone = world.connect(*listener.getsockname())
        return zone, listener.accept()[0]


def tcp_up(world: World) -> float:
    return tcp_rate(*tcp_pair(world), upward=True)


def tcp_down(world: World) -> float:
    return tcp_rate(*tcp_pair(world), upward=False)


def udp_pair(world: World) -> tuple[socket.socket, socket.socket]:
    """Both ends of a flow of the zone's that both have been heard on."""
    with contextlib.ExitStack() as stack:
        outside = stack.enter_context(world.of(world.outside, lambda: socket.socket(type=socket.SOCK_DGRAM)))
        zone = stack.enter_context(world.in_zone(lambda: socket.socket(type=socket.SOCK_DGRAM)))
        for each in (outside, zone):
            each.settimeout(20)
        outside.bind((OUTSIDE4, 0))
        zone.connect(outside.getsockname())
        zone.send(b"hello")
        outside.connect(outside.recvfrom(100)[1])
        outside.send(b"hello")
        assert zone.recv(100) == b"hello"
        stack.pop_all()
        return zone, outside


def udp_rate(source: socket.socket, sink: socket.socket) -> float:
    """At four times the limit, as far as this machine can."""
    stop = threading.Event()

    def send() -> None:
        data, began, sent = bytes(PAYLOAD), time.monotonic(), 0
        while not stop.is_set():
            if sent * 8 < (time.monotonic() - began) * 4 * SLOW_BIT_S:
                with contextlib.suppress(OSError):
                    source.send(data)
                sent += PAYLOAD
            else:
                time.sleep(0.001)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        return rate_of(lambda: len(sink.recv(2048)), SLOW_BIT_S)
    finally:
        stop.set()
        thread.join()
        source.close()
        sink.close()


def udp_up(world: World) -> float:
    return udp_rate(*udp_pair(world))


def udp_down(world: World) -> float:
    return udp_rate(*reversed(udp_pair(world)))


def up_with(world: World, bandwidth_bit_s: int) -> ZoneNetwork:
    world.network = world.new_network(bandwidth_bit_s=bandwidth_bit_s)
    return world.up()


@pytest.mark.parametrize(
    ("measure", "limit_bit_s", "most"),
    [
        (tcp_up, LIMIT_BIT_S, MOST_BY_COUNT),
        (tcp_down, LIMIT_BIT_S, MOST_BY_COUNT),
        (udp_up, SLOW_BIT_S, MOST),
        (udp_down, SLOW_BIT_S, MOST),
    ],
)
def test_rate_holds_until_the_limit_is_taken_away(
    world: World, measure: Measure, limit_bit_s: int, most: float
) -> None:
    network = up_with(world, limit_bit_s)
    world.meet()
    assert_rate(lambda: measure(world), LEAST, most)
    network.limit(0)
    assert_rate(lambda: measure(world), FREE)


@pytest.mark.parametrize("upward", [True, False])
def test_limit_changes_under_connections_that_run(world: World, upward: bool) -> None:
    """Down as well, while the queue is full of what was sent at the limit before."""
    network = up_with(world, 2 * LIMIT_BIT_S)
    zone, outside = tcp_pair(world)
    source, sink = (zone, outside) if upward else (outside, zone)
    with drained(sink), flowing(source, sink):
        for _ in range(2):
            assert_rate(lambda: rate_at(zone), 2 * LEAST, 2 * MOST_BY_COUNT)
            network.limit(LIMIT_BIT_S // 2)
            assert_rate(lambda: rate_at(zone), LEAST / 2, MOST_BY_COUNT / 2)
            network.limit(2 * LIMIT_BIT_S)


def test_published_ports_are_held_to_it_too(world: World) -> None:
    network = up_with(world, LIMIT_BIT_S)
    with world.in_zone(lambda: socket.create_server((world.addresses.zone4, 80))) as listener:
        listener.settimeout(20)
        ((address, port),) = world.on_host(lambda: network.publish([Port("127.0.0.1", 0, 80)]))

        def measure() -> float:
            client = world.on_host(lambda: socket.create_connection((address, port), 20))
            return tcp_rate(listener.accept()[0], client, upward=False)

        assert_rate(measure, LEAST, MOST_BY_COUNT)


def test_zone_that_comes_again_is_held_to_it_again(world: World) -> None:
    network = up_with(world, LIMIT_BIT_S)
    world.replace_vif("vif8.0")
    world.on_host(lambda: network.attach("vif8.0"))
    world.meet()
    for measure in (tcp_up, tcp_down):
        assert_rate(lambda measure=measure: measure(world), LEAST, MOST_BY_COUNT)  # type: ignore[misc]


def test_without_a_limit_nothing_is_made_and_nothing_stays_of_one(world: World) -> None:
    network, device = up_with(world, 0), device_of(world.addresses.host)

    def made() -> str:
        return world.shell(network.netns, "tc qdisc show; ip -o link")

    before = made()
    network.limit(0)
    assert made() == before and device not in before
    network.limit(LIMIT_BIT_S)
    assert device in made()
    network.limit(0)
    assert "tbf" not in made() and "ingress" not in made() and device not in made()


@pytest.mark.parametrize("bit_s", [0, 2 * LIMIT_BIT_S])
def test_limit_of_a_network_that_an_earlier_version_made_is_changed_and_taken_away(world: World, bit_s: int) -> None:
    """Its device had another name."""
    network, device = up_with(world, LIMIT_BIT_S), device_of(world.addresses.host)
    filters = "tc filter show dev vif7.0 parent ffff:"
    world.shell(network.netns, f"ip link add limit0 type ifb; ip link set limit0 up; ip link del {device}")
    where = "dev vif7.0 parent ffff: protocol all prio 1 handle 800::800"
    redirect = "u32 match u32 0 0 action mirred egress redirect dev limit0"
    world.shell(network.netns, f"tc filter replace {where} {redirect}")
    assert "to device limit0" in world.shell(network.netns, filters)
    network.limit(bit_s)
    left = world.shell(network.netns, "tc qdisc show; ip -o link")
    assert "limit0" not in left and (device in left) == (bit_s > 0)
    assert left.count("rate 32Mbit") == (2 if bit_s else 0)
    if bit_s:
        assert f"to device {device}" in world.shell(network.netns, filters)


def test_limit_this_host_cannot_hold_is_refused_and_the_one_before_stays(world: World) -> None:
    network = up_with(world, LIMIT_BIT_S)

    def buckets() -> str:
        return re.sub(r"tbf \w+:", "tbf", world.shell(network.netns, "tc qdisc show"))

    before = buckets()
    assert before.count("rate 16Mbit") == 2
    with pytest.raises(NetworkFault, match=r"bandwidth: expected tc -batch - to succeed, got .*sch_tbf"):
        network.limit(-1)
    assert buckets() == before


@pytest.mark.parametrize("refused", [-1, 1 << 62])
def test_limit_this_host_cannot_hold_leaves_nothing_where_there_was_none(world: World, refused: int) -> None:
    network = up_with(world, 0)

    def made() -> str:
        return world.shell(network.netns, "tc qdisc show; ip -o link | cut -d: -f2")

    before = made()
    with pytest.raises(NetworkFault, match="bandwidth"):
        network.limit(refused)
    assert made() == before
    network.limit(0)
    assert made() == before
