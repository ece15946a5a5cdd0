"""What a zone's connections may hold of the host's memory, and for how long when nobody answers."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.networld import OUTSIDE4, World

from runtime.net import plan
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.queues import FREE_BYTES, RESTING_S, SHORT_BYTES, Queues
from runtime.net.engine.relay import Relay, Target

STALLED = 150
# Of a queue that was made short; what came before that, and a last packet, may be more than it has room for.
QUEUE_BYTES = 2 * SHORT_BYTES + (96 << 10)
_SKMEM = re.compile(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f\d+,w(\d+),")


class FakeWay:
    """A direction of which the test says what it brought."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.source, self.sink = (stack.enter_context(socket.socket()) for _ in range(2))
        self.sent_bytes, self.full = FREE_BYTES, False

    @property
    def short(self) -> bool:
        lengths = (
            self.source.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
            self.sink.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        )
        return lengths == (2 * SHORT_BYTES, 2 * SHORT_BYTES)


@pytest.fixture
def make_way() -> Iterator[Callable[[], FakeWay]]:
    with contextlib.ExitStack() as stack:
        yield lambda: FakeWay(stack)


def test_ways_beyond_those_that_may_grow_get_short_queues(make_way: Callable[[], FakeWay]) -> None:
    queues, ways = Queues(2), [make_way() for _ in range(3)]
    for way in ways:
        queues.ask(way)
    assert [way.short for way in ways] == [False, False, True]
    queues.leave(ways[0])
    queues.leave(ways[2])
    another = make_way()
    queues.ask(another)
    assert not another.short
    assert len(queues) == 2


@pytest.mark.parametrize(
    ("moves", "full", "gives_way"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_way_that_rests_gives_its_queues_up_and_one_that_works_or_holds_bytes_does_not(
    make_way: Callable[[], FakeWay], monkeypatch: pytest.MonkeyPatch, moves: bool, full: bool, gives_way: bool
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("runtime.net.engine.queues.time.monotonic", lambda: now)
    queues, old, new = Queues(1), make_way(), make_way()
    queues.ask(old)
    now += RESTING_S
    old.sent_bytes += moves
    old.full = full
    queues.ask(new)
    assert (old.short, new.short) == (gives_way, not gives_way)


def waiting_bytes(world: World, name: str, port: int) -> int:
    """What all connections with this port at either end hold in a namespace's kernel, to receive and to send."""
    lines = world.shell(name, f"ss -Htnmi '( sport = {port} or dport = {port} )'")
    return sum(sum(map(int, found)) for found in _SKMEM.findall(lines))


def test_many_connections_that_stand_still_hold_what_was_computed(world: World) -> None:
    """The zone sends to servers that never read: all queues on the way are full, and short, but a few."""
    stuck: list[socket.socket] = []
    held: list[socket.socket] = []

    def hold(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        held.append(connection.dup())

    port = world.serve(world.outside, OUTSIDE4, 0, hold)
    world.network = world.new_network(limits=Limits(growing=2))
    network = world.up()
    world.stack.callback(lambda: [each.close() for each in (*stuck, *held)])
    for _ in range(STALLED):
        connection = world.connect(OUTSIDE4, port)
        connection.setblocking(False)
        stuck.append(connection)
    piece = bytes(1 << 20)

    def push() -> int:
        moved = 0
        for each in stuck:
            with contextlib.suppress(BlockingIOError):
                moved += each.send(piece)
        return moved

    def held_bytes() -> int:
        return waiting_bytes(world, world.host, port) + waiting_bytes(world, network.netns, port)

    # Until nobody takes anything: the zone's own queues are full then, and all behind them. On a busy machine nobody
    # may for a moment before.
    calm = 0
    deadline = time.monotonic() + 120
    while calm < 5 or held_bytes() <= STALLED * SHORT_BYTES:
        assert time.monotonic() < deadline, "the zone can send without end, or queues stay empty"
        calm = calm + 1 if not push() else 0
        time.sleep(0.1)
    grown = 2 * ((4 << 20) + int(world.shell(world.host, "cat /proc/sys/net/ipv4/tcp_wmem").split()[2]))
    bound = STALLED * 2 * QUEUE_BYTES + grown
    assert held_bytes() <= bound
    assert network.engine is not None
    counters = network.counters()
    assert (counters["active"], counters["faults"]) == (STALLED, 0)


def test_queues_towards_the_zone_are_bounded_in_its_namespace(world: World) -> None:
    network = world.up()
    for key, value in plan.queue_sysctls():
        assert world.shell(network.netns, f"cat /proc/sys/net/{key}").split() == value.split()


def test_engine_has_a_bound_on_its_own_memory(world: World) -> None:
    network = world.up()
    assert network.engine is not None
    limits = Path(f"/proc/{network.engine.pid}/limits").read_text()
    soft, hard = next(line for line in limits.splitlines() if line.startswith("Max data size")).split()[3:5]
    assert soft == hard
    assert 128 << 20 < int(hard) < 256 << 20


def attempts(connection: socket.socket) -> int:
    """Packets sent again, and probes."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    return info[2] + info[3]


SENT_AGAIN_S = 60.0  # on a loaded machine it begins late, and each attempt comes twice as late as the one before
NOBODY = "203.0.113.77"
ELSEWHERE = (
    f"ip route replace {OUTSIDE4}/32 via {NOBODY}; ip neighbour replace {NOBODY} lladdr 02:00:00:00:00:77 dev up0"
)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("outside", "nft 'table inet t { chain c { type filter hook input priority 0; policy drop; }; }'"),
        ("host", ELSEWHERE),
        ("host", f"ip route replace blackhole {OUTSIDE4}/32"),
    ],
    ids=["black hole", "route leads elsewhere", "route is gone"],
)
def test_connection_whose_way_has_gone_is_reset(world: World, where: str, line: str) -> None:
    with relayed(world, Limits(silence_s=0.5)) as (relay, client, ended):
        world.shell(getattr(world, where), line)
        client.sendall(b"into nothing")
        far = relay._far
        relay.ready(relay._near, 1)
        world.wait_until(lambda: attempts(far) > 0, SENT_AGAIN_S)

        def over() -> bool:
            relay.tick(time.monotonic())
            return bool(ended)

        assert not over(), "only when it was seen twice"
        world.wait_until(over, SENT_AGAIN_S)
        client.settimeout(30)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_reader_that_rests_is_not_taken_for_one_that_is_gone(world: World) -> None:
    """Its kernel answers each probe, with a closed window: TCP_USER_TIMEOUT would end this."""
    with relayed(world, Limits(silence_s=0.5)) as (relay, client, ended):
        client.setblocking(False)
        far = relay._far
        piece = bytes(65536)

        def probed() -> bool:
            with contextlib.suppress(BlockingIOError):
                client.send(piece)
            relay.ready(relay._near, 1)
            relay.ready(far, 4)
            unacked = far.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)[24:28]
            return relay._ways[0].full and unacked == bytes(4)

        world.wait_until(probed)
        ended_by = time.monotonic() + 3
        while time.monotonic() < ended_by:
            relay.tick(time.monotonic())
            assert not ended
            time.sleep(0.1)


@contextlib.contextmanager
def relayed(world: World, limits: Limits) -> Iterator[tuple[Relay, socket.socket, list[bool]]]:
    """A relay of this process from a connection on loopback to a server outside that takes and never reads."""
    held: list[socket.socket] = []
    port = world.serve(world.outside, OUTSIDE4, 0, lambda connection: held.append(connection.dup()))
    far = world.on_host(lambda: socket.create_connection((OUTSIDE4, port), 30))
    ended: list[bool] = []
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, far, socket.create_connection(listener.getsockname()) as client:
        far.setblocking(False)
        near, _ = listener.accept()
        target = Target(socket.AF_INET, (OUTSIDE4, port), lambda family, kind: far, connected=True)
        relay = Relay(Loop(), limits, near, [target], lambda _, connected: ended.append(connected))
        relay.start()
        try:
            yield relay, client, ended
        finally:
            relay.abort()
            for each in held:
                each.close()
