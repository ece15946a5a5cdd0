"""The back end of hvc1 against a front end that behaves as Linux's, one that does not, and after a kill."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.rings import IN_CONS, IN_PROD, OUT_PROD, SharedXen, until
from support.xenstored import FakeXenstored

from runtime.boot import nodes, pvconsole
from runtime.boot.attend import Attendant, LoopAttendant
from runtime.boot.channel import Channel
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import NotOnXen, XenstoreFault
from runtime.boot.model import Domid
from runtime.boot.nodes import XenbusState
from runtime.boot.xenstore import XenStore

FRONT, BACK = "/local/domain/1/device/console/1", "/local/domain/0/backend/console/1/1"


class Heard:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.data = bytearray()

    def connected(self) -> None:
        self.words.append("connected")

    def received(self, data: bytes) -> None:
        self.data += data

    def writable(self) -> None:
        self.words.append("writable")

    def disconnected(self, reason: str) -> None:
        self.words.append(f"disconnected: {reason}")


class World:
    """A host: Xen, xenstore with the planned nodes, and a front end to play."""

    def __init__(self, xen: SharedXen, xenstored: FakeXenstored) -> None:
        self.xen, self.xenstored = xen, xenstored
        self.store = XenStore(xenstored.path, timeout_s=60)
        self.store.apply(pvconsole.plan_console(Domid(1)))
        self.heard = Heard()

    def channel(self, attendant: Attendant | None = None) -> Channel:
        return Channel(Hypervisor(self.xen), self.store, Domid(1), name="web", attendant=attendant)

    def publish(self, reference: Any = SharedXen.REFERENCE, port: Any = SharedXen.CHANNEL_PORT) -> None:
        self.xenstored.put(f"{FRONT}/ring-ref", str(reference).encode("utf-8", "surrogateescape"))
        self.xenstored.put(f"{FRONT}/port", str(port).encode("utf-8", "surrogateescape"))
        self.state(XenbusState.INITIALISED)

    def state(self, state: XenbusState) -> None:
        self.xenstored.put(f"{FRONT}/state", str(state.value).encode())

    def ring(self) -> None:
        self.xen.channels[0].fire()

    @property
    def backend_state(self) -> str | None:
        return self.xenstored.value(f"{BACK}/state")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    daemon = FakeXenstored(tmp_path)
    world = World(SharedXen(), daemon)
    yield world
    world.store.close()
    daemon.close()


def leftovers(world: World) -> list[Any]:
    return [*world.xen.channels, *world.xen.open_maps]


def test_nodes_are_planned_for_hvc1_and_go_with_the_domain(world: World) -> None:
    assert nodes.frontend_path(1, nodes.CONSOLE, pvconsole.NUMBER) == FRONT
    assert {key: world.xenstored.value(f"{FRONT}/{key}") for key in ("backend", "backend-id", "state")} == {
        "backend": BACK,
        "backend-id": "0",
        "state": "1",
    }
    assert world.xenstored.nodes[f"{FRONT}/state"].perms == (b"n1", b"r0")
    assert world.xenstored.nodes[f"{BACK}/state"].perms == (b"n0", b"r1")
    assert world.backend_state == "2"
    assert "/local/domain/0/backend/console/1" in nodes.stale_paths(1)
    assert "/local/domain/0/backend/console/1" in nodes.stale_paths(1, backend_domid=7)


def test_bytes_go_both_ways_when_the_front_end_is_ready(world: World) -> None:
    channel = world.channel()
    channel.start(world.heard)
    assert world.heard.words == []
    world.publish()
    until(lambda: world.heard.words == ["connected"])
    until(lambda: world.backend_state == "4")
    world.state(XenbusState.CONNECTED)
    rest = random.Random(1).randbytes(100_000)
    sent = rest
    while rest:
        piece = rest[: world.xen.agent.room()]
        world.xen.agent.say(piece)
        world.ring()
        rest = rest[len(piece) :]
        until(lambda: world.xen.agent.room() == 2048)
    until(lambda: bytes(world.heard.data) == sent)
    assert channel.write(b"hello") == 5
    assert world.xen.agent.hear() == b"hello"
    channel.close()
    channel.close()
    assert leftovers(world) == []


def test_a_full_ring_takes_what_fits_and_tells_when_there_is_room(world: World) -> None:
    channel = world.channel()
    channel.start(world.heard)
    world.publish()
    until(lambda: world.heard.words == ["connected"])
    assert channel.write(b"x" * 1500) == 1024
    assert channel.write(b"x") == 0
    assert world.xen.agent.hear() == b"x" * 1024
    world.ring()
    until(lambda: world.heard.words == ["connected", "writable"])
    assert channel.write(b"y" * 476) == 476
    world.ring()
    world.xen.agent.say(b"!")
    world.ring()
    until(lambda: world.heard.data == b"!")
    assert world.heard.words == ["connected", "writable"]
    channel.close()


def test_the_guest_is_rung_where_it_may_have_stopped_reading_and_only_there(world: World) -> None:
    world.publish()
    channel = world.channel()
    channel.start(world.heard)
    until(lambda: world.heard.words == ["connected"])
    (bell,) = world.xen.channels
    rung = bell.notified
    channel.write(b"one")
    assert bell.notified == rung + 1
    channel.write(b"two")  # "one" has not been read: it will come to this as well
    assert bell.notified == rung + 1
    assert world.xen.agent.hear() == b"onetwo"
    channel.write(b"three")
    assert bell.notified == rung + 2
    world.xen.agent.say(b"x" * 2047)
    world.ring()
    until(lambda: world.xen.agent.room() == 2048)
    assert bell.notified == rung + 2
    world.xen.agent.say(b"x" * 2048)
    world.ring()
    until(lambda: bell.notified == rung + 3)
    channel.close()


def test_room_is_told_of_when_it_is_worth_it(world: World) -> None:
    """Linux reads 16 bytes at a time, and rings for each."""
    world.publish()
    channel = world.channel()
    channel.start(world.heard)
    until(lambda: world.heard.words == ["connected"])
    channel.write(bytes(2000))
    agent = world.xen.agent
    for read in range(16, 1025, 16):
        agent.set(IN_CONS, agent.get(IN_CONS) + 16)
        agent.say(b".")
        world.ring()
        until(lambda read=read: len(world.heard.data) == read // 16)  # type: ignore[misc]
        if read >= 512:
            until(lambda: "writable" in world.heard.words)  # which is told behind what came
        assert ("writable" in world.heard.words) == (read >= 512)
    channel.close()


def test_what_comes_before_the_receiver_waits_in_the_ring(world: World) -> None:
    world.publish()
    channel = world.channel()
    assert world.backend_state == "4"
    world.xen.agent.say(b"early")
    world.ring()
    channel.start(world.heard)
    until(lambda: world.heard.data == b"early")
    assert world.heard.words == ["connected"]
    channel.close()


def connected(world: World) -> Channel:
    """One whose front end is there."""
    channel = world.channel()
    channel.start(world.heard)
    world.publish()
    until(lambda: world.backend_state == "4" and world.heard.words == ["connected"])
    return channel


def test_a_killed_process_is_followed_by_one_that_takes_the_same_ring(world: World) -> None:
    connected(world)
    world.state(XenbusState.CONNECTED)
    world.xen.channels[0].close()  # the kernel's work after kill -9
    world.xen.agent.say(b"meanwhile")
    written = len(world.xenstored.requests)
    second, heard = world.channel(), Heard()
    second.start(heard)
    until(lambda: heard.data == b"meanwhile")
    assert world.xen.channels[0].notified == 1  # the first may have died between a byte and its ring
    assert heard.words == ["connected"]
    assert world.backend_state == "4"
    assert set(world.xenstored.requests[written:]) == {"watch", "read"}
    second.close()


def test_the_front_end_closes_and_comes_again(world: World) -> None:
    channel = connected(world)
    world.state(XenbusState.CLOSING)
    until(lambda: world.backend_state == "5")  # what a Linux that shuts down waits for, 5 s for nothing else
    until(lambda: len(world.heard.words) == 2)
    assert leftovers(world) == []
    assert channel.write(b"into the void") == 0
    world.state(XenbusState.CLOSED)
    until(lambda: world.backend_state == "6")
    world.state(XenbusState.INITIALISING)
    until(lambda: world.backend_state == "2")
    world.publish()
    until(lambda: world.backend_state == "4")
    until(lambda: len(world.heard.words) == 3)
    assert world.heard.words == ["connected", "disconnected: the zone closed it", "connected"]
    channel.close()
    assert leftovers(world) == []


def test_a_front_end_that_is_back_before_its_end_was_seen_is_waited_for(world: World) -> None:
    channel = connected(world)
    world.state(XenbusState.CLOSING)
    until(lambda: world.backend_state == "5")
    world.state(XenbusState.INITIALISING)
    until(lambda: world.backend_state == "2")
    channel.close()


@pytest.mark.parametrize(
    ("reference", "port"),
    [
        ("", "5"),
        ("8", ""),
        ("-1", "5"),
        ("8", "0"),
        ("8", "131072"),
        ("4294967296", "5"),
        ("0x8", "5"),
        ("8\n", "5"),
        ("\u0668", "5"),
        ("8" * 4000, "5"),
        ("99", "5"),
        ("8", "99"),
    ],
)
def test_nonsense_from_the_guest_closes_its_channel_and_holds_nothing(world: World, reference: str, port: str) -> None:
    channel = world.channel()
    channel.start(world.heard)
    world.publish(reference, port)
    until(lambda: world.backend_state == "6")
    until(lambda: world.heard.words)
    assert len(world.heard.words) == 1
    assert world.heard.words[0].startswith("disconnected: ")
    assert len(world.heard.words[0]) < 200
    assert leftovers(world) == []
    world.state(XenbusState.CLOSED)
    world.state(XenbusState.INITIALISING)
    until(lambda: world.backend_state == "2")
    world.publish()
    until(lambda: world.heard.words[1:] == ["connected"])
    channel.close()


@pytest.mark.parametrize("state", [b"", b"7", b"99", b"-3", b"four", b"\xff", b"4" * 4000])
def test_states_that_are_none_change_nothing(world: World, state: bytes) -> None:
    world.publish()
    channel = world.channel()
    channel.start(world.heard)
    for _ in range(1000):
        world.xenstored.put(f"{FRONT}/state", state)
    world.xen.agent.say(b"still here")
    world.ring()
    until(lambda: world.heard.data == b"still here")
    assert world.backend_state == "4"
    channel.close()


def test_indices_without_sense_lose_bytes_and_nothing_else(world: World) -> None:
    world.publish()
    channel = world.channel()
    channel.start(world.heard)
    world.xen.agent.set(OUT_PROD, 0x12345678)
    world.ring()
    until(lambda: world.xen.agent.room() == 2048)
    world.xen.agent.set(IN_CONS, world.xen.agent.get(IN_PROD) + 5)
    assert channel.write(b"x") == 0
    world.xen.agent.say(b"sense")
    world.ring()
    until(lambda: world.heard.data == b"sense")
    channel.close()


def test_indices_without_sense_fill_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.publish()
    channel = world.channel()
    channel.start(world.heard)
    for turn in range(200):
        world.xen.agent.set(OUT_PROD, turn * 100_000 + 50_000)
        world.ring()
        until(lambda: world.xen.agent.room() == 2048)
    channel.close()
    told = [record.getMessage() for record in caplog.records if "overwrote" in record.getMessage()]
    assert 1 <= len(told) <= 40


def test_an_asyncio_loop_serves_it_and_worker_threads_make_and_close_it(world: World) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        channel = await asyncio.to_thread(world.channel, LoopAttendant(loop))
        arrived = asyncio.Event()

        class Told(Heard):
            def received(self, data: bytes) -> None:
                assert asyncio.get_running_loop() is loop
                super().received(data)
                arrived.set()

        told = Told()
        channel.start(told)
        world.xen.agent.say(b"hello loop")
        world.publish()
        await asyncio.wait_for(arrived.wait(), 60)
        assert (told.words, told.data) == (["connected"], b"hello loop")
        await asyncio.to_thread(channel.close)

    asyncio.run(run())
    assert leftovers(world) == []


def test_closing_while_the_front_end_comes_and_goes_leaves_nothing(world: World) -> None:
    for turn in range(30):
        channel = world.channel()
        channel.start(world.heard)
        world.publish()
        for _ in range(turn % 4):
            world.state(XenbusState.CLOSING)
            world.publish()
        channel.close()
        until(lambda: leftovers(world) == [])
        world.state(XenbusState.INITIALISING)


def test_a_tree_that_is_gone_does_not_come_back(world: World) -> None:
    channel = world.channel()
    channel.start(world.heard)
    world.store.remove(BACK)
    world.publish()
    until(lambda: world.heard.words == ["connected"])
    world.state(XenbusState.CLOSED)
    until(lambda: world.heard.words[1:])
    channel.close()
    assert world.xenstored.below(BACK) == []


SHORT = NotOnXen("/dev/xen/evtchn", got="Too many open files", temporary=True)


def fail(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, problem: Exception, times: int) -> list[str]:
    """Have a method fail so often; what it gives has a word for each."""
    work, failed = getattr(owner, name), []  # type: ignore[var-annotated]

    def sometimes(*arguments: Any) -> Any:
        if len(failed) < times:
            failed.append(name)
            raise problem
        return work(*arguments)

    monkeypatch.setattr(owner, name, sometimes)
    return failed


@pytest.mark.parametrize("what", ["map_grant", "bind_event_channel"])
def test_channel_comes_when_the_host_has_what_it_was_short_of(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("runtime.boot.channel._FIRST_PAUSE_S", 0.01)
    channel = world.channel()
    channel.start(world.heard)
    failed = fail(monkeypatch, world.xen, what, SHORT, 3)
    world.publish()
    until(lambda: world.heard.words)
    assert world.heard.words == ["connected"] and len(failed) == 3
    channel.close()
    assert leftovers(world) == []


def test_channel_that_a_host_is_short_for_is_not_made_and_the_front_end_hears_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish()
    with monkeypatch.context() as patches:
        fail(patches, world.xen, "bind_event_channel", SHORT, 1)
        with pytest.raises(NotOnXen):
            world.channel()
    assert world.backend_state == "2" and leftovers(world) == []
    channel = world.channel()
    assert world.backend_state == "4"
    channel.close()


def test_look_that_xenstored_does_not_answer_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.boot.channel._FIRST_PAUSE_S", 0.01)
    channel = world.channel()
    channel.start(world.heard)
    fail(monkeypatch, world.store, "read", XenstoreFault("xenstore", got="timed out", temporary=True), 2)
    world.publish()
    until(lambda: world.heard.words == ["connected"])
    channel.close()


def test_channel_that_is_closed_looks_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = world.channel()
    failed = fail(monkeypatch, world.xen, "map_grant", SHORT, 1)
    world.publish()
    until(lambda: failed)
    until(lambda: channel._timer is not None)
    channel.close()
    assert channel._timer is not None
    channel._timer.join()
    assert world.backend_state == "2" and leftovers(world) == []


def test_a_xenstored_that_is_gone_makes_no_channel(world: World) -> None:
    world.xenstored.close()
    with pytest.raises(XenstoreFault):
        world.channel()
    assert leftovers(world) == []
