"""An engine that refuses a zone, or says nothing, in the midst of something: what is believed of it stays true."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.bundle.model import Port
from runtime.net import netlink, netns, network
from runtime.net.addresses import plan_addresses
from runtime.net.engine.interface import Handback
from runtime.net.engine.model import ZonePart
from runtime.net.errors import EngineFault, NetworkFault, PortTaken, UnknownToEngine
from runtime.net.network import ZoneNetwork
from runtime.net.plan import Place
from runtime.net.segment import Segment


class ScriptedEngine:
    """An engine's handle: has what it was told, unless its script says otherwise.

    silent:   it answers nothing. refuses: the zone it does not take.
    """

    pid = start_time = 1

    def __init__(self, *zones: str) -> None:
        self.has: dict[str, set[str]] = {zone: set() for zone in zones}
        self.silent, self.refuses = False, ""

    def alive(self) -> bool:
        return True

    def stop(self) -> None:
        pass

    def wait_ready(self, timeout_s: float) -> None:
        if self.silent:
            raise EngineFault("network engine", expected="an answer", got="no answer: timed out", temporary=True)

    def zones(self) -> list[str]:
        self.wait_ready(0)
        return sorted(self.has)

    def admit(self, zone: ZonePart, inside: Sequence[socket.socket]) -> None:
        self.wait_ready(0)
        if zone.name == self.refuses:
            raise EngineFault("network engine", expected="admit to be done", got="no room")
        self.has[zone.name] = set()

    def publish(self, zone: str, listener: socket.socket, key: str, zone_port: int) -> None:
        self.wait_ready(0)
        self.has[zone].add(key)

    def unpublish(self, zone: str, key: str) -> None:
        self.wait_ready(0)
        if key not in self.has[zone]:
            raise UnknownToEngine("network engine", expected="unpublish to be done", got=f"{key} is not published")
        self.has[zone].remove(key)

    def settle(self, zone: str) -> None:
        self.wait_ready(0)

    def judge_by(self, zone: str, rules: tuple[str, ...]) -> None:
        self.wait_ready(0)

    def resolve_by(self, resolvers: tuple[str, ...]) -> None:
        self.wait_ready(0)

    def leave(self, zone: str) -> None:
        del self.has[zone]

    def handback(self, zone: str) -> Handback:
        self.wait_ready(0)
        if zone not in self.has:
            raise UnknownToEngine("network engine", expected="handback to be done", got=f"no zone {zone!r} here")
        return Handback([], [])


class NotedLayout:
    """Nothing is in the namespace; `loaded` has whom the rules were of, each time."""

    mapped = has_sockets = False
    shareable = ports_change = True
    probes = ("", "")

    def __init__(self) -> None:
        self.loaded: list[list[int]] = []

    def load_rules(self, whose: str, addresses: Any, places: Sequence[Place]) -> None:
        self.loaded.append([place.group for place in places])

    def check_egress(self, rules: Any, subject: str) -> None:
        pass


class ScriptedSegment(Segment):
    """A network whose engines are as told: this one, and the one that takes its place."""

    def __init__(self, directory: Path, *, shared: bool, engine: ScriptedEngine, next: ScriptedEngine) -> None:
        super().__init__("net", plan_addresses(9), 1500, _unrecorded, shared=shared, run_directory=directory)
        self.layout = self.noted = NotedLayout()  # type: ignore[assignment]
        self._handle, self._next = engine, next  # type: ignore[assignment]

    def _start_engine(self) -> None:
        self._handle = self._next  # type: ignore[assignment]


def _unrecorded(kind: str, **fields: Any) -> None:
    pass


def zone_of(segment: Segment, name: str, host: int) -> ZoneNetwork:
    return ZoneNetwork(name, plan_addresses(9, host=host), 1500, _unrecorded, segment=segment)


@pytest.fixture(autouse=True)
def _no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str, work: Callable[[], Any]) -> Any:
        return work()

    monkeypatch.setattr(netns, "inside", here)


@pytest.fixture
def successor() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def zones(tmp_path: Path, successor: ScriptedEngine) -> list[ZoneNetwork]:
    """Three of a shared network, served by an engine that is to be replaced."""
    segment = ScriptedSegment(tmp_path, shared=True, engine=ScriptedEngine(), next=successor)
    made = [zone_of(segment, name, host) for name, host in (("a", 2), ("b", 3), ("c", 4))]
    for zone in made:
        segment.join(zone)
        zone.serve()
    return made


def test_name_that_differs_in_case_only_has_no_place(zones: list[ZoneNetwork]) -> None:
    """The engine would know one of the two, and forget it when either leaves."""
    segment = zones[0].segment
    said = "zone B: expected a name that no zone of network net has in any case of letters, got that of zone b"
    with pytest.raises(NetworkFault, match=f"^{said}$"):
        zone_of(segment, "B", 5).create()
    segment.leave(zones[1])
    segment.expect("B")


def test_what_was_given_back_is_remembered_no_more(zones: list[ZoneNetwork]) -> None:
    """Ports come and go, and engines die, as long as a zone runs."""
    zone = zones[0]
    for _ in range(3):
        ((address, port),) = zone.publish([Port("127.0.0.1", 0, 80)])
        zone.unpublish(address, port)
        zone.revive()
    assert zone._records == zone.segment._records == []


# -- revivals ----------------------------------------------------------------------------------------------------------


def test_zone_that_the_next_engine_refuses_does_not_keep_it_from_the_others(
    zones: list[ZoneNetwork], successor: ScriptedEngine
) -> None:
    successor.refuses = "a"
    with pytest.raises(EngineFault, match="no room"):
        zones[0].revive()
    assert sorted(successor.has) == ["b", "c"]
    successor.refuses = ""
    zones[0].serve()
    assert sorted(successor.has) == ["a", "b", "c"]


def test_engine_that_somebody_else_has_had_replaced_stays(zones: list[ZoneNetwork], successor: ScriptedEngine) -> None:
    zones[0].revive(only_dead=True)
    assert successor.has == {}
    zones[0].revive()
    assert sorted(successor.has) == ["a", "b", "c"]


def test_no_zone_is_believed_to_be_served_by_an_engine_that_never_answered(
    zones: list[ZoneNetwork], successor: ScriptedEngine
) -> None:
    successor.silent = True
    with pytest.raises(EngineFault, match="no answer"):
        zones[0].revive()
    successor.silent = False
    for zone in zones:
        zone.serve()
    assert sorted(successor.has) == ["a", "b", "c"]


def test_port_that_is_taken_is_said_only_when_the_engine_does_what_it_should(
    zones: list[ZoneNetwork],
    successor: ScriptedEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else whoever has it revived would take it for served."""
    taken = PortTaken("port 127.0.0.1:80 of zone a", expected="it free", got="taken by another program")
    monkeypatch.setattr(zones[0]._ports, "open_again", lambda: taken)
    successor.silent = True
    with pytest.raises(EngineFault):
        zones[0].revive()
    assert str(taken) in caplog.text
    successor.silent = False
    with pytest.raises(PortTaken):
        zones[0].revive()
    assert sorted(successor.has) == ["a", "b", "c"]


# -- adoptions ---------------------------------------------------------------------------------------------------------


def test_rules_are_those_of_all_zones_when_one_of_them_was_unknown_to_the_engine(tmp_path: Path) -> None:
    engine = ScriptedEngine("a", "c", "gone")
    segment = ScriptedSegment(tmp_path, shared=True, engine=engine, next=engine)
    for name, host in (("b", 3), ("a", 2), ("c", 4)):
        assert zone_of(segment, name, host).adopt([])
    assert segment.noted.loaded == [], "not of those that happen to be in by then"
    segment.forget_others()
    assert segment.noted.loaded == [[3, 2, 4]]
    assert engine.zones() == ["a", "b", "c"]


def test_rules_are_left_alone_when_the_engine_knows_every_zone(tmp_path: Path) -> None:
    """They are those that it came with, of its own version."""
    engine = ScriptedEngine("a", "b")
    segment = ScriptedSegment(tmp_path, shared=True, engine=engine, next=engine)
    for name, host in (("a", 2), ("b", 3)):
        assert zone_of(segment, name, host).adopt([])
    segment.forget_others()
    assert segment.noted.loaded == []


def test_rules_of_a_private_network_wait_for_nobody(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    segment = ScriptedSegment(tmp_path, shared=False, engine=engine, next=engine)
    segment.adopt = lambda records: True  # type: ignore[method-assign]
    assert zone_of(segment, "a", 2).adopt([])
    assert segment.noted.loaded == [[2]]


# -- ports -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(zones: list[ZoneNetwork]) -> tuple[ZoneNetwork, ScriptedEngine, int]:
    """A zone, its engine, a port of this host that leads there."""
    ((_, port),) = zones[0].publish([Port("127.0.0.1", 0, 80)])
    engine: Any = zones[0].engine
    return zones[0], engine, port


def test_port_stays_published_until_the_engine_has_given_it_up(
    published: tuple[ZoneNetwork, ScriptedEngine, int],
) -> None:
    zone, engine, port = published
    engine.silent = True
    with pytest.raises(EngineFault, match="no answer"):
        zone.unpublish("127.0.0.1", port)
    assert [item.port for item in zone.published()] == [port]
    engine.silent = False
    zone.unpublish("127.0.0.1", port)
    assert zone.published() == () and engine.has["a"] == set()
    with pytest.raises(NetworkFault, match="expected one that is published, got none"):
        zone.unpublish("127.0.0.1", port)


def test_port_that_the_engine_gave_up_unheard_is_given_up_when_it_is_asked_again(
    published: tuple[ZoneNetwork, ScriptedEngine, int],
) -> None:
    zone, engine, port = published
    engine.has["a"].clear()
    zone.unpublish("127.0.0.1", port)
    assert zone.published() == ()


def test_port_of_an_engine_that_ends_meanwhile_is_given_up(
    published: tuple[ZoneNetwork, ScriptedEngine, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    zone, engine, port = published
    lives = iter([True, False])
    monkeypatch.setattr(engine, "alive", lambda: next(lives))
    engine.silent = True
    zone.unpublish("127.0.0.1", port)
    assert zone.published() == ()


# -- ends --------------------------------------------------------------------------------------------------------------


def test_zone_of_which_something_stays_has_left_its_network_all_the_same(
    zones: list[ZoneNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device of its bandwidth, say: who tears down the rest by the ledger does not know the network."""

    def stays(records: Any) -> None:
        raise NetworkFault("network zw-@net, bandwidth", expected="ip to end", got="it still runs")

    segment = zones[0].segment
    with monkeypatch.context() as patched:
        patched.setattr(network, "teardown", stays)
        with pytest.raises(NetworkFault, match="it still runs"):
            zones[0].destroy()
    assert sorted(segment.zones) == ["b", "c"]
    segment.expect("a")
    zones[0].destroy()


def test_vif_that_could_not_be_released_is_tried_again_and_its_zone_is_in_until_then(
    zones: list[ZoneNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its group is the zone's number: whoever got that would speak by this port as well."""
    zone, segment, released = zones[0], zones[0].segment, []

    def fails(vif: str) -> None:
        raise NetworkFault(f"interface {vif}", expected="it no port", got="no buffer space")

    monkeypatch.setattr(netns, "DIRECTORY", tmp_path)
    netns.path_of(segment.netns).touch()
    zone.vif = "vif3.0"
    monkeypatch.setattr(netlink, "release_link", fails)
    with pytest.raises(NetworkFault, match="no buffer space"):
        zone.destroy()
    assert "a" in segment.zones
    monkeypatch.setattr(netlink, "release_link", released.append)
    zone.destroy()
    assert released == ["vif3.0"] and "a" not in segment.zones
