"""What passes through an engine, as records."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest
from support.networld import BLACK_HOLE, HOST4, OUTSIDE4, OUTSIDE6, World

from pipeline.bundle.model import Port
from runtime.net.engine.flows import PAGE_ROWS, Flow, endpoint, page
from runtime.net.engine.model import Limits


class Source:
    def __init__(self, rows: list[Flow]) -> None:
        self.rows = rows

    def flows(self, now: float) -> Iterator[Flow]:
        yield from self.rows


def flow(port: int, protocol: str = "tcp") -> Flow:
    return Flow(protocol, f"10.75.0.2:{port}", "192.0.2.7:443", "open", 1, 2, 3.0)


def test_pages_have_each_flow_once_in_the_order_of_their_ends() -> None:
    dice = random.Random(3)
    rows = [flow(port, protocol) for port in range(1000, 1300) for protocol in ("tcp", "udp")]
    dice.shuffle(rows)
    sources = [Source(rows[:100]), Source([]), Source(rows[100:])]
    found: list[Flow] = []
    while part := page(sources, list(found[-1][:3]) if found else [], 0.0):
        assert len(part) <= PAGE_ROWS
        found += part
    assert found == sorted(rows)


def test_flow_that_stays_is_listed_however_many_come_and_go_between_pages() -> None:
    staying = [flow(port) for port in range(10_000, 60_000, 97)]
    source, found = Source([]), list[Flow]()
    for turn in range(1000):
        source.rows = staying + [flow(port, "udp") for port in range(10_000 + turn, 60_000, 331)]
        part = page([source], list(found[-1][:3]) if found else [], 0.0)
        if not part:
            break
        found += part
    assert set(staying) <= set(found)
    assert len(found) == len(set(found))


def test_ends_are_written_as_people_write_them() -> None:
    assert endpoint(("192.0.2.1", 80)) == "192.0.2.1:80"
    assert endpoint(("2001:db8::1", 80, 0, 0)) == "[2001:db8::1]:80"


@pytest.mark.root
def test_connections_are_listed_both_ways_with_their_bytes(world: World) -> None:
    held = threading.Event()

    def server(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"x" * 1000)
        held.wait(20)

    network = world.up()
    ports = [world.serve(world.outside, address, 0, server) for address in (OUTSIDE4, OUTSIDE6)]
    world.serve(world.zone, "0.0.0.0", 80, server)
    ((_, published),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    connections = [world.connect(address, port) for address, port in zip((OUTSIDE4, OUTSIDE6), ports, strict=True)]
    connections.append(world.of(world.outside, lambda: socket.create_connection((HOST4, published), 10)))
    try:
        for connection in connections:
            connection.sendall(b"hello")
            assert len(connection.recv(1000, socket.MSG_WAITALL)) == 1000
        zone = world.addresses
        found = {(row.zone_side, row.outside): row for row in network.flows()}
        assert found.keys() == {
            (endpoint(connections[0].getsockname()), f"{OUTSIDE4}:{ports[0]}"),
            (endpoint(connections[1].getsockname()), f"[{OUTSIDE6}]:{ports[1]}"),
            (f"{zone.zone4}:80", endpoint(connections[2].getsockname())),
        }
        for (zone_side, _), row in found.items():
            inward = zone_side == f"{zone.zone4}:80"
            assert (row.protocol, row.state) == ("tcp", "open")
            assert (row.bytes_up, row.bytes_down) == ((1000, 5) if inward else (5, 1000))
            assert 0 <= row.age_s < 20
    finally:
        held.set()
        for connection in connections:
            connection.close()
    world.wait_until(lambda: network.flows() == [])


@pytest.mark.root
def test_ports_that_are_closed_leave_no_source_behind(world: World) -> None:
    network = world.up()
    for _ in range(3):
        ((address, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
        network.unpublish(address, port)
    assert network.flows() == []
    assert network.counters()["faults"] == 0


@pytest.mark.root
def test_more_flows_than_one_answer_holds_are_all_listed(world: World) -> None:
    held = threading.Event()
    count = PAGE_ROWS + 30
    world.network = world.new_network(limits=Limits(connections=count + 10))
    network = world.up()
    port = world.serve(world.outside, OUTSIDE4, 0, lambda connection: held.wait(60) and None)
    made = []
    try:
        made += [world.connect(OUTSIDE4, port) for _ in range(count)]
        wanted = {endpoint(connection.getsockname()) for connection in made}
        world.wait_until(lambda: {row.zone_side for row in network.flows() if row.state == "open"} == wanted)
        assert len(network.flows()) == count
    finally:
        held.set()
        for connection in made:
            connection.close()


@pytest.mark.root
def test_connect_that_hangs_is_listed_as_such(world: World) -> None:
    network = world.up()
    made = world.in_zone(socket.socket)
    with made:
        made.setblocking(False)
        made.connect_ex((BLACK_HOLE, 80))
        world.wait_until(lambda: len(network.flows()) == 1)
        (row,) = network.flows()
        assert (row.outside, row.state, row.bytes_up) == (f"{BLACK_HOLE}:80", "connecting", 0)
        assert row.zone_side.startswith(f"{world.addresses.zone4}:")
