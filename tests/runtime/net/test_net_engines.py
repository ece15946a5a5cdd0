"""Engines that die, zoneds that die, zones that are restarted: what stays, and who brings the rest back."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.networld import HOST4, OUTSIDE4, VIF, World

from pipeline.bundle.model import Port
from runtime.net import supervise
from runtime.net.engine import processes
from runtime.net.engine.model import INSIDE
from runtime.net.engine.proxy import ProxyEngine, ProxyHandle
from runtime.net.errors import EngineFault, NetworkFault, PortTaken
from runtime.net.listing import networks
from runtime.net.network import ZoneNetwork
from runtime.net.plan import LARGEST_PACKET
from runtime.net.supervise import EngineSupervisor

pytestmark = pytest.mark.root


def kill_engine(network: ZoneNetwork) -> int:
    assert network.engine is not None
    pid = network.engine.pid
    os.kill(pid, signal.SIGKILL)
    return pid


def serve_in_zone(world: World, port: int = 80, text: bytes = b"zone") -> None:
    world.serve(world.zone, "0.0.0.0", port, lambda connection: connection.sendall(text))


def ask(world: World, port: int) -> bytes:
    """What the zone says through a published port."""
    with world.of(world.outside, lambda: socket.create_connection((HOST4, port), 30)) as connection:
        return connection.recv(100)


def assert_zone_reaches_outside(world: World, port: int = 8080) -> None:
    with world.connect(OUTSIDE4, port) as connection:
        assert connection.recv(10) == b"hi"


def asking() -> dict[str, Any]:
    """How an engine is asked where nobody says otherwise."""
    defaults = ProxyHandle._ask.__kwdefaults__
    assert defaults is not None
    return defaults


class Events:
    """What a supervisor told, and a way to wait for it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.sentences: list[str] = []
        self._news = threading.Condition()

    def __call__(self, network: ZoneNetwork, event: str, text: str) -> None:
        with self._news:
            self.seen.append(event)
            self.sentences.append(text)
            self._news.notify_all()

    def wait(self, event: str, count: int = 1) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self.seen.count(event) >= count, 60), self.sentences


@contextmanager
def supervised(world: World, network: ZoneNetwork) -> Iterator[Events]:
    events = Events()
    supervisor = world.on_host(lambda: EngineSupervisor(events))
    try:
        world.on_host(lambda: supervisor.add(network))  # one that is dead already is revived where it is told
        yield events
    finally:
        supervisor.discard(network)
        supervisor.close()


def test_dead_engine_is_replaced_and_who_connected_meanwhile_is_served(world: World) -> None:
    before = world.state_of_host()
    serve_in_zone(world)
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    assert ask(world, port) == b"zone"
    with supervised(world, network) as events:
        started = time.monotonic()
        old = kill_engine(network)
        assert ask(world, port) == b"zone", "the listener was there all the time"
        sys.stderr.write(f"\nserved again after {time.monotonic() - started:.2f} s\n")
        events.wait("revived")
        assert network.engine is not None and network.engine.pid != old
        assert_zone_reaches_outside(world)
        assert (network.restarts, events.seen) == (1, ["died", "revived"])
    network.destroy()
    assert world.state_of_host() == before


def test_dead_engine_is_replaced_again_and_again(world: World) -> None:
    serve_in_zone(world)
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    with supervised(world, network) as events:
        for turn in range(1, 4):
            kill_engine(network)
            events.wait("revived", turn)
            assert ask(world, port) == b"zone"
    assert network.counters()["faults"] == 0


@pytest.mark.parametrize(("deaths", "delay"), [(0, 0), (1, 0), (2, 0.25), (3, 0.5), (9, 30), (5000, 30)])
def test_engine_that_keeps_dying_is_tried_less_often(deaths: int, delay: float) -> None:
    assert supervise.delay_s(deaths) == delay


class SickEngine(ProxyEngine):
    """Starts once, then fails as often as it is told."""

    def __init__(self, failures: int) -> None:
        self.failures, self.starts = failures, 0

    def prepare(self, inherited: tuple[int, ...], control: Path, log_file: Path) -> Any:
        self.starts += 1
        if 1 < self.starts <= 1 + self.failures:
            raise OSError(12, "Cannot allocate memory")
        return super().prepare(inherited, control, log_file)


def test_engine_that_cannot_be_started_is_tried_until_it_can(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_DELAY_S", 0.01)
    serve_in_zone(world)
    world.network = world.new_network(engine=SickEngine(3))
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    with supervised(world, network) as events:
        kill_engine(network)
        events.wait("revived")
        assert events.seen == ["died", "failed", "failed", "failed", "revived"]
        assert "Cannot allocate memory" in events.sentences[1]
    assert ask(world, port) == b"zone"


def test_engine_that_stands_still_is_replaced_and_its_zone_is_served_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "LOOK_S", 0.05)
    monkeypatch.setattr(supervise, "ANSWER_S", 1.5)
    serve_in_zone(world)
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    assert network.engine is not None
    hung = network.engine.pid
    with supervised(world, network) as events:
        os.kill(hung, signal.SIGSTOP)
        events.wait("revived")
        assert "did not answer 3 times in a row" in events.sentences[0]
        assert network.engine.pid != hung
        assert ask(world, port) == b"zone"


def test_network_that_is_given_up_is_not_revived(world: World) -> None:
    network = world.up()
    with supervised(world, network) as events:
        pass
    kill_engine(network)
    world.wait_until(lambda: not network.alive())
    assert events.seen == []


def test_ports_come_and_go_while_the_zone_runs(world: World) -> None:
    serve_in_zone(world)
    network = world.up()
    ((_, first),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    ((_, second),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    assert ask(world, first) == ask(world, second) == b"zone"
    network.unpublish(HOST4, first)
    with pytest.raises(ConnectionRefusedError):
        ask(world, first)
    assert ask(world, second) == b"zone"
    with pytest.raises(NetworkFault, match=f"expected one that is published, got {HOST4}:{second}"):
        network.unpublish(HOST4, first)
    kinds = [record["kind"] for record in world.records if "listener" in record["kind"]]
    assert kinds == ["net.listener", "net.listener", "net.listener.gone"]


def test_port_unpublished_while_the_engine_is_dead_stays_so(world: World) -> None:
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    kill_engine(network)
    world.wait_until(lambda: not network.alive())
    network.unpublish(HOST4, port)
    world.on_host(network.revive)
    with pytest.raises(ConnectionRefusedError):
        ask(world, port)


def test_port_that_an_engine_gave_up_without_an_answer_is_given_up_when_it_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_in_zone(world)
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    assert network.engine is not None
    with monkeypatch.context() as hurried:
        hurried.setitem(asking(), "timeout_s", 0.2)
        os.kill(network.engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineFault, match="no answer"):
            network.unpublish(HOST4, port)
        assert [item.port for item in network.published()] == [port]
    os.kill(network.engine.pid, signal.SIGCONT)
    network.unpublish(HOST4, port)
    assert network.published() == ()
    with pytest.raises(ConnectionRefusedError):
        ask(world, port)


@contextmanager
def unheard(network: ZoneNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is asked meanwhile is done behind it, and the answers have nobody to come to."""
    assert network.engine is not None
    with monkeypatch.context() as hurried:
        hurried.setitem(asking(), "timeout_s", 0.2)
        hurried.setattr(network.engine, "wait_ready", lambda timeout_s: None)  # it was, a moment ago
        os.kill(network.engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineFault, match="no answer"):
            yield
    os.kill(network.engine.pid, signal.SIGCONT)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_port_that_an_engine_took_without_an_answer_is_served_when_it_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    serve_in_zone(world)
    network = world.up()
    with unheard(network, monkeypatch):
        world.on_host(lambda: network.publish([Port(HOST4, 0, 80, protocol)]))
    world.on_host(network.serve)
    ((address, port, served),) = [(item.address, item.port, item.served) for item in network.published()]
    assert (address, served) == (HOST4, True)
    if protocol == "tcp":
        assert ask(world, port) == b"zone"
    network.unpublish(HOST4, port, protocol)
    assert str(port) not in world.shell(world.host, "ss -Hlntu")


def test_port_that_an_engine_took_without_an_answer_can_be_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = world.up()
    with unheard(network, monkeypatch):
        world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    (item,) = network.published()
    network.unpublish(HOST4, item.port)
    assert network.published() == ()
    assert str(item.port) not in world.shell(world.host, "ss -Hlntu")


def test_zone_that_an_engine_took_without_an_answer_is_served_when_it_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = world.network
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    world.on_host(network.create)
    world.on_host(lambda: network.attach(VIF))
    assert network.engine is not None
    network.engine.wait_ready(20)
    with unheard(network, monkeypatch):
        world.on_host(network.serve)
    world.on_host(network.serve)
    assert_zone_reaches_outside(world)


def test_port_published_before_the_engine_ran_is_served_by_the_next(world: World) -> None:
    serve_in_zone(world)
    network = world.up()
    kill_engine(network)
    world.wait_until(lambda: not network.alive())
    ((_, port),) = world.on_host(lambda: network.listen([Port(HOST4, 0, 80)]))
    world.on_host(network.revive)
    assert ask(world, port) == b"zone"


def test_ports_and_addresses_outlive_a_restart_of_the_zone(world: World) -> None:
    serve_in_zone(world)
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    assert network.engine is not None
    pid = network.engine.pid
    assert ask(world, port) == b"zone"
    world.replace_vif("vif9.0")
    world.on_host(lambda: network.attach("vif9.0"))
    assert ask(world, port) == b"zone"
    assert (network.vif, network.engine.pid) == ("vif9.0", pid)


def test_vif_that_cannot_be_attached_again_leaves_the_network(world: World) -> None:
    network = world.up()
    with pytest.raises(NetworkFault, match=r"interface vif9\.0"):
        world.on_host(lambda: network.attach("vif9.0"))
    assert network.alive()
    assert network.vif == VIF


class DyingZoned:
    """A process that brings a network up and is killed; its ledger is a file."""

    def __init__(self, world: World, ports: int = 1) -> None:
        self.world, self.ledger = world, world.directory / "ledger"
        ready, told = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._live(ports, told)
        os.close(told)
        self.ports = json.loads(os.read(ready, 4096) or b"[]")
        os.close(ready)

    def _live(self, ports: int, told: int) -> None:
        try:
            self.world.network._record = self._record
            network = self.world.up()
            bound = self.world.on_host(lambda: network.publish([Port(HOST4, 0, 80)] * ports))
            os.write(told, json.dumps([port for _, port in bound]).encode())
            signal.pause()
        finally:
            os._exit(1)

    def _record(self, kind: str, **fields: Any) -> None:
        with open(self.ledger, "a") as file:
            file.write(json.dumps({"kind": kind, **fields}) + "\n")

    def kill(self) -> list[dict[str, Any]]:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.world.records += [json.loads(line) for line in self.ledger.read_text().splitlines()]
        return self.world.records

    def kill_engine(self, records: list[dict[str, Any]]) -> None:
        record = next(record for record in records if record["kind"] == "net.engine")
        processes.kill(record["pid"], record["start_time"])


def test_killed_zoned_is_not_noticed_and_its_successor_can_do_all_it_could(world: World) -> None:
    serve_in_zone(world)
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    zoned = DyingZoned(world, ports=3)
    assert len(zoned.ports) == 3
    talk = world.of(world.outside, lambda: socket.create_connection((HOST4, zoned.ports[0]), 30))
    records = zoned.kill()
    assert talk.recv(10) == b"zone", "a connection of before goes on"
    talk.close()
    assert ask(world, zoned.ports[1]) == b"zone"
    successor = world.new_network()
    assert world.on_host(lambda: successor.adopt(records))
    assert sorted(item.port for item in successor.published()) == sorted(zoned.ports)
    assert successor.vif == VIF
    successor.unpublish(HOST4, zoned.ports[2])
    with pytest.raises(ConnectionRefusedError):
        ask(world, zoned.ports[2])
    with supervised(world, successor) as events:
        kill_engine(successor)
        assert ask(world, zoned.ports[0]) == b"zone"
        events.wait("revived")
    assert_zone_reaches_outside(world)


def test_zoned_and_engine_both_killed_are_made_up_for_on_the_same_ports(world: World) -> None:
    serve_in_zone(world)
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    zoned = DyingZoned(world, ports=2)
    records = zoned.kill()
    zoned.kill_engine(records)
    successor = world.new_network()
    assert not world.on_host(lambda: successor.adopt(records))
    world.on_host(successor.revive)
    assert [ask(world, port) for port in zoned.ports] == [b"zone", b"zone"]
    assert_zone_reaches_outside(world)


def test_port_somebody_took_while_nobody_held_it_is_named_and_the_rest_serves(world: World) -> None:
    serve_in_zone(world)
    zoned = DyingZoned(world, ports=2)
    records = zoned.kill()
    zoned.kill_engine(records)
    successor = world.new_network()
    assert not world.on_host(lambda: successor.adopt(records))
    world.serve(world.host, HOST4, zoned.ports[0], lambda connection: connection.sendall(b"thief"))
    with pytest.raises(PortTaken, match=f"{HOST4}:{zoned.ports[0]}"):
        world.on_host(successor.revive)
    assert ask(world, zoned.ports[1]) == b"zone"
    assert [item.port for item in successor.published()] == [zoned.ports[1]]


def test_record_of_a_pid_that_is_somebody_elses_now_is_no_engine(world: World) -> None:
    network = world.up()
    records = [dict(record) for record in world.records]
    kill_engine(network)
    world.wait_until(lambda: not network.alive())
    world.abandon(network)
    for record in records:
        if record["kind"] == "net.engine":
            record["pid"] = os.getpid()
    assert not world.on_host(lambda: world.new_network().adopt(records))


def test_engine_that_hangs_is_not_adopted_but_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(asking(), "timeout_s", 0.2)
    serve_in_zone(world)
    zoned = DyingZoned(world)
    records = zoned.kill()
    os.kill(next(record["pid"] for record in records if record["kind"] == "net.engine"), signal.SIGSTOP)
    successor = world.new_network()
    assert not world.on_host(lambda: successor.adopt(records))
    monkeypatch.undo()
    with supervised(world, successor) as events:
        events.wait("revived")
    assert ask(world, zoned.ports[0]) == b"zone"


def test_engine_of_an_older_version_is_replaced_with_a_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a zoned finds it that was updated while zones ran: fewer descriptors, and routes of another plan."""
    serve_in_zone(world)
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    zoned = DyingZoned(world)
    records = zoned.kill()
    monkeypatch.setattr("runtime.net.engine.proxy.ProxyHandle.INSIDE", (*INSIDE, "of_a_later_version"))
    successor = world.new_network()
    assert not world.on_host(lambda: successor.adopt(records))
    assert f"expected {len(INSIDE) + 1} descriptors and those of its ports, got {len(INSIDE) + 1}, as" in caplog.text
    assert not successor.alive()
    monkeypatch.undo()
    world.ip(successor.netns, "route del local 0.0.0.0/0 dev lo table local", "link set lo mtu 65536")
    world.on_host(successor.revive)
    assert f"mtu {LARGEST_PACKET} " in world.shell(successor.netns, "ip link show lo")
    assert ask(world, zoned.ports[0]) == b"zone"
    assert_zone_reaches_outside(world)


def test_networks_are_listed_with_ports_and_counters_dead_engine_or_not(world: World) -> None:
    serve_in_zone(world)
    network = world.up()
    ((_, port),) = world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    world.on_host(lambda: network.publish([Port(HOST4, port, 53, "udp")]))
    ask(world, port)
    (info,) = networks([network])
    assert (info.name, info.ipv4, info.gateway4, info.vif) == (network.name, "10.75.7.0/24", "10.75.7.1", VIF)
    ports = ((HOST4, port, 80, "tcp"), (HOST4, port, 53, "udp"))
    assert info.ports == ports
    assert (info.counters["published"], info.problem, info.restarts) == (1, "", 0)
    kill_engine(network)
    world.wait_until(lambda: not network.alive())
    (info,) = networks([network])
    assert (info.counters, info.ports) == ({}, ports)
    assert "it ended" in info.problem
