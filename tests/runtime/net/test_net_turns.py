"""Turns in an engine's loop: those of one zone's streams are not another's to wait for."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.failinghandler import FailingHandler

from runtime.net.addresses import plan_addresses
from runtime.net.engine import loop as loops
from runtime.net.engine.dns import Resolvers
from runtime.net.engine.hostports import HostPorts
from runtime.net.engine.loop import READ, Loop
from runtime.net.engine.model import INSIDE, EngineConfig, Limits, Listeners, ZonePart
from runtime.net.engine.names import Names
from runtime.net.engine.pipes import PipePool
from runtime.net.engine.relay import Relay
from runtime.net.engine.tap import Requests
from runtime.net.engine.zone import Common, Zone
from runtime.net.netlink import Routes

BUSY = 200
TRIPS = 20
ADDRESSES = plan_addresses(9)
CONFIG = EngineConfig(
    whose="network db",
    netns="",
    uid=64009,
    zones=2,
    subnets=ADDRESSES.subnets,
    resolvers=(),
    gateway4=ADDRESSES.gateway4,
    gateway6=ADDRESSES.gateway6,
    mtu=1500,
    deny=(),
    seccomp="",
    limits=Limits(),
    listeners=Listeners(-1),
    pools=("10.75.0.0/16", "fd5a:6f6e:6577::/48"),
)


class Factory:
    """Sockets of this namespace instead of a network's."""

    def make(self, family: int, kind: int) -> socket.socket:
        return socket.socket(family, kind)


def inside_of_loopback() -> list[socket.socket]:
    inside = []
    for each in INSIDE:
        family, host = (socket.AF_INET6, "::1") if each.endswith("6") else (socket.AF_INET, "127.0.0.1")
        if each.startswith("tcp"):
            inside.append(socket.create_server((host, 0), family=family))
        else:
            inside.append(socket.socket(family, socket.SOCK_DGRAM))
    return inside


class Served:
    """A zone on loopback with a published port, and its clients' and servers' ends of connections to that."""

    def __init__(self, stack: contextlib.ExitStack, common: Common, name: str, number: int) -> None:
        self.zone = Zone(common, ZonePart(name, "127.0.0.1", "::1", number), inside_of_loopback())
        stack.callback(self.close)
        self._server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._listener = socket.create_server(("127.0.0.1", 0))
        assert self.zone.publish("port", self._server.getsockname()[1], self._listener) == ""
        self._stack = stack
        self.clients: list[socket.socket] = []
        self.servers: list[socket.socket] = []

    def close(self) -> None:
        if self.zone.inside[0].fileno() >= 0:
            self.zone.close()

    def connect(self) -> None:
        self.clients.append(self._stack.enter_context(socket.create_connection(self._listener.getsockname(), 10)))

    def connected(self) -> bool:
        """Has the last connection come to the server?"""
        return bool(select.select([self._server], [], [], 0)[0])

    def accept(self) -> None:
        accepted, _ = self._server.accept()
        self.servers.append(self._stack.enter_context(accepted))

    def relay_of(self, client: socket.socket) -> Relay:
        name = client.getsockname()
        (relay,) = (each for each in self.zone.traffic.inward if each._near.getpeername() == name)
        return relay


class Bell:
    """Lets the loop go round so many times."""

    def __init__(self, stack: contextlib.ExitStack, loop: Loop) -> None:
        self._loop, self._left = loop, 0
        self._rings, rung = (stack.enter_context(each) for each in socket.socketpair())
        rung.send(b"x")

    def run(self, rounds: int) -> None:
        self._left = rounds
        self._loop._running = True
        self._loop.watch(self._rings, self, READ)
        self._loop.run()
        self._loop.forget(self._rings)

    def ready(self, source: socket.socket, mask: int) -> None:
        self._left -= 1
        if self._left <= 0:
            self._loop.stop()

    def tick(self, now: float) -> None:
        pass

    def abort(self) -> None:
        pass


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def common_of(stack: contextlib.ExitStack, loop: Loop) -> Common:
    factory: Any = Factory()
    ports, routes = HostPorts(), Routes()
    stack.callback(ports.close)
    return Common(loop, CONFIG, factory, routes, Resolvers(()), Names(()), ports)


def test_zone_waits_for_few_turns_of_a_neighbour_with_many_busy_streams(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop()
    common = common_of(stack, loop)
    greedy, modest = Served(stack, common, "greedy", 1), Served(stack, common, "modest", 2)
    bell = Bell(stack, loop)
    for served, count in ((greedy, BUSY), (modest, 1)):
        for _ in range(count):
            served.connect()
            while not served.connected():
                bell.run(3)
            served.accept()
    bell.run(BUSY)
    (asking,), (answering,) = modest.clients, modest.servers
    asking.setblocking(False)
    answering.setblocking(False)
    busy = {greedy.relay_of(client): client for client in greedy.clients}
    own = modest.relay_of(asking)
    waited, turns = [], 0
    ready = Relay.ready

    def counted(relay: Relay, source: socket.socket, mask: int) -> None:
        nonlocal turns
        ready(relay, source, mask)
        if relay in busy:
            turns += 1
            if source is relay._near:
                busy[relay].send(b"x")  # and it is ready again, behind all the others
        elif relay is own:
            with contextlib.suppress(BlockingIOError):
                answering.send(answering.recv(9))
            with contextlib.suppress(BlockingIOError):
                asking.recv(9)
                waited.append(turns)
                turns = 0
                if len(waited) == TRIPS:
                    loop.stop()
                else:
                    asking.send(b"?")

    monkeypatch.setattr(Relay, "ready", counted)
    for client in busy.values():
        client.send(b"x")
    asking.send(b"?")
    bell.run(10_000)
    assert len(waited) == TRIPS
    assert sum(waited) >= TRIPS, "the neighbour goes on meanwhile"
    assert max(waited) <= 3 * loops._TURNS, "there and back, and a little for what comes in between"


class Always(FailingHandler):
    """Something that can be read all the time, and takes its time whenever it is."""

    def __init__(self, loop: Loop, stack: contextlib.ExitStack, clock: Clock, seen: list[str], name: str) -> None:
        super().__init__(loop)
        self._clock, self._seen, self._name = clock, seen, name
        for _ in range(20):
            near, far = (stack.enter_context(each) for each in socket.socketpair())
            far.send(b"x")
            loop.watch(near, self, READ)

    def ready(self, source: socket.socket, mask: int) -> None:
        self._clock.now += 60e-6  # as much as a connect
        self._seen.append(self._name)


class Clock:
    """In the place of the module."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def longest(seen: list[str], name: str) -> int:
    """How often it was its turn with nobody else's in between."""
    return max(len(run) for run in "".join(each[0] for each in seen).split("m" if name == "greedy" else "g"))


def test_turn_ends_when_its_time_is_over(stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Clock(), list[str]()
    monkeypatch.setattr(loops, "time", clock)
    loop = Loop()
    for name in ("greedy", "modest"):
        part = loop.part()
        stack.callback(part.end)
        Always(part, stack, clock, seen, name)
    while len(seen) < 200:
        loop._serve(loop._epoll.poll(0, 64))
    assert {longest(seen, "greedy"), longest(seen, "modest")} == {2}


@pytest.mark.parametrize("shared", [False, True])
def test_packets_of_a_flood_are_taken_one_by_one(stack: contextlib.ExitStack, shared: bool) -> None:
    loop = Loop()
    part = loop.part() if shared else loop
    near, far = (stack.enter_context(each) for each in socket.socketpair(type=socket.SOCK_DGRAM))
    taken: list[bytes] = []
    requests = Requests(part, taken.append, taken.append)
    requests.listen(near)
    for _ in range(10):
        far.send(bytes(40))
    requests.ready(near, READ)
    assert len(taken) == 1


def test_zone_that_leaves_takes_its_part_of_the_loop_along(stack: contextlib.ExitStack) -> None:
    loop = Loop()
    common = common_of(stack, loop)
    first, second = Served(stack, common, "first", 1), Served(stack, common, "second", 2)
    assert first.zone._loop is not second.zone._loop
    assert len(loop._watched) == 2
    first.close()
    assert len(loop._watched) == 1
    alone = common._replace(config=CONFIG._replace(zones=1))
    third = Served(stack, alone, "third", 3)
    assert third.zone._loop is loop, "it needs no turns, and pays for none"


@pytest.mark.parametrize("zones", [1, 2])
def test_zone_that_finds_no_place_leaves_nothing_in_the_loop(stack: contextlib.ExitStack, zones: int) -> None:
    """Whoever sent its sockets has them still, so the kernel would tell of them for ever."""

    class Last(socket.socket):
        def setblocking(self, flag: bool) -> None:
            raise OSError(errno.ENOSPC, "more is watched than fs.epoll.max_user_watches")

    loop = Loop(PipePool(12))
    common = common_of(stack, loop)._replace(config=CONFIG._replace(zones=zones))
    inside = [stack.enter_context(each) for each in inside_of_loopback()]
    inside[1] = stack.enter_context(Last(fileno=inside[1].detach()))
    with pytest.raises(OSError, match="more is watched"):
        Zone(common, ZonePart("first", "127.0.0.1", "::1", 1), inside)
    assert not loop._watched and not loop._parts
    assert loop.pipes.shares == 0, "the others have all pipes"


def test_part_has_the_deadlines_the_time_and_the_faults_of_the_whole() -> None:
    loop = Loop()
    part = loop.part()
    handler = FailingHandler(loop)
    near, far = socket.socketpair()
    with near, far:
        part.watch(near, handler, READ)
        far.send(b"x")
        loop.run()
        part.forget(near)
    assert loop.faults == 1 and handler.aborted == 1
    assert part.now == loop.now
    part.urgent.add(handler)
    loop._running = True
    loop.run()
    part.discard(handler)
    assert not loop.urgent
    part.end()
    part.end()
    assert not loop._watched
