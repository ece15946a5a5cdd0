"""Set-up and teardown of a network for real: what is recorded, what stays, what comes back."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from support.networld import HOST4, OUTSIDE4, VIF, World

from pipeline.bundle.model import Port
from runtime.errors import RuntimeFault
from runtime.net import netns
from runtime.net.addresses import plan_addresses
from runtime.net.engine import processes
from runtime.net.engine.proxy import ProxyEngine
from runtime.net.errors import EngineFault, NetworkFault, PortTaken
from runtime.net.network import teardown
from runtime.net.strays import strays
from runtime.net.teardown import directories

pytestmark = pytest.mark.root


def engine_record(world: World) -> dict[str, Any]:
    return next(record for record in world.records if record["kind"] == "net.engine")


def engines_running(world: World) -> list[str]:
    """Processes of engines of this world, which its logs tell from those of whoever runs beside it, as whosever child.

    One that waits for its config is none yet.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            logs = os.readlink(entry / "fd/2")
            if logs.startswith(f"{world.directory}/") and "Uid:\t64007" in (entry / "status").read_text():
                found.append(entry.name)
        except OSError:
            continue  # it has ended
    return found


def link_names(world: World, name: str) -> list[str]:
    return world.of(name, lambda: [link for _, link in socket.if_nameindex()])


def assert_nothing_left(world: World) -> None:
    assert not netns.path_of(world.network.netns).exists()
    assert engines_running(world) == []
    assert list((world.directory / "run").glob("*")) == []
    # The veth dies with the namespace of its peer: so the namespace is really gone, not only its name.
    world.wait_until(lambda: "eth0" not in link_names(world, world.zone))


def test_destroy_leaves_nothing_and_the_host_was_never_touched(world: World) -> None:
    before = world.state_of_host()
    network = world.up()
    world.on_host(lambda: network.publish([Port(HOST4, 0, 80)]))
    assert engines_running(world) == [str(engine_record(world)["pid"])]
    during = world.state_of_host()
    during.pop("sockets")  # the published port
    assert during == {name: text for name, text in before.items() if name != "sockets"}
    network.destroy()
    network.destroy()
    assert world.state_of_host() == before
    assert_nothing_left(world)


def test_limit_of_bandwidth_does_not_touch_the_host(world: World) -> None:
    before = world.state_of_host()
    assert len(before["settings"].splitlines()) > 100
    world.network = world.new_network(bandwidth_bit_s=8_000_000)
    network = world.up()
    assert world.state_of_host() == before
    assert "tbf" in world.shell(network.netns, "tc qdisc"), "there is a limit"
    network.destroy()
    assert world.state_of_host() == before


def test_each_resource_is_recorded_before_it_is_taken(world: World) -> None:
    seen: list[tuple[str, bool]] = []

    def record(kind: str, **fields: Any) -> None:
        exists = {
            "net.directory": lambda: Path(fields["path"]).exists(),
            "net.netns": lambda: netns.path_of(fields["name"]).exists(),
            # The process is there, waits for its config and has not become the engine.
            "net.engine": lambda: engines_running(world) != [],
            "net.vif": lambda: fields["vif"] not in link_names(world, world.host),
            "net.listener": lambda: "published" in fields,
        }[kind]()
        seen.append((kind, exists))

    world.network = world.new_network()
    world.network._record = record
    world.up()
    world.on_host(lambda: world.network.publish([Port(HOST4, 0, 80)]))
    kinds = ["net.directory", "net.netns", "net.engine", "net.vif", "net.listener"]
    assert seen == [(kind, False) for kind in kinds]


def test_killed_engine_is_seen_and_the_ledger_alone_cleans_up(world: World) -> None:
    network = world.up()
    record = engine_record(world)
    os.kill(record["pid"], signal.SIGKILL)
    world.wait_until(lambda: not network.alive())
    with pytest.raises(EngineFault) as caught:
        network.counters()
    assert "it ended" in str(caught.value)
    world.abandon(network)
    teardown(world.records)
    teardown(world.records)
    assert_nothing_left(world)


def test_ledger_alone_ends_a_running_network(world: World) -> None:
    network = world.up()
    world.abandon(network)
    teardown(world.records)
    assert not network.alive()
    assert_nothing_left(world)


def test_network_that_no_ledger_names_is_found_and_ended(world: World) -> None:
    network, run = world.up(), world.directory / "run"
    known = list(directories(world.records))
    assert list(strays(run, known)) == []
    world.abandon(network)
    assert list(strays(run, known)) == []
    (found,) = strays(run, ())
    kinds = {"net.directory", "net.netns", "net.engine"}
    assert found == [
        {key: value for key, value in record.items() if key != "engine"}
        for record in world.records
        if record["kind"] in kinds
    ]
    teardown(found)
    assert not network.alive()
    assert_nothing_left(world)


def test_teardown_spares_a_process_that_only_has_the_recorded_pid(world: World) -> None:
    own = os.getpid()
    assert processes.start_time_of(own)
    teardown([{"kind": "net.engine", "pid": own, "start_time": 1}])


def test_failure_to_attach_tears_everything_down(world: World) -> None:
    network = world.network
    world.on_host(network.create)
    with pytest.raises(NetworkFault) as caught:
        world.on_host(lambda: network.attach("vif99.0"))
    assert "vif99.0" in str(caught.value)
    assert not netns.path_of(network.netns).exists()
    assert engines_running(world) == []
    assert VIF in link_names(world, world.host)


class FailingEngine(ProxyEngine):
    def prepare(self, inherited: tuple[int, ...], control: Path, log_file: Path) -> Any:
        raise OSError(12, "Cannot allocate memory")


def test_engine_that_cannot_start_leaves_no_namespace(world: World) -> None:
    world.network = world.new_network(engine=FailingEngine())
    with pytest.raises(NetworkFault):
        world.on_host(world.network.create)
    assert not netns.path_of(world.network.netns).exists()
    assert list((world.directory / "run").glob("*")) == []


def test_engine_of_a_starter_that_died_before_the_config_ends_by_itself(world: World) -> None:
    prepared = ProxyEngine().prepare((), world.directory / "control", world.directory / "log")
    assert prepared._child.stdin is not None
    prepared._child.stdin.close()
    assert prepared._child.wait(60) == 0


def test_second_network_of_the_same_name_is_refused_and_the_first_lives(world: World) -> None:
    network = world.up()
    with pytest.raises(NetworkFault):
        world.on_host(world.new_network().create)
    assert network.alive()
    assert network.counters()["faults"] == 0


def test_taken_port_is_named_and_no_other_port_of_the_list_stays_open(world: World) -> None:
    world.serve(world.host, HOST4, 8081, lambda connection: None)
    network = world.up()
    with pytest.raises(PortTaken) as caught:
        world.on_host(lambda: network.publish([Port(HOST4, 8080, 80), Port(HOST4, 8081, 81)]))
    assert f"{HOST4}:8081" in str(caught.value)
    with pytest.raises(ConnectionRefusedError):
        world.of(world.outside, lambda: socket.create_connection((HOST4, 8080), 30))


def test_port_of_another_protocol_is_refused_with_a_sentence(world: World) -> None:
    network = world.up()
    with pytest.raises(RuntimeFault, match="expected protocol tcp or udp, got sctp"):
        world.on_host(lambda: network.publish([Port(HOST4, 0, 53, "sctp")]))


def test_later_zoned_adopts_a_running_network_from_its_ledger(world: World) -> None:
    world.abandon(world.up())
    adopted = world.new_network()
    assert adopted.adopt([{"kind": "domain", "domid": 1}, *world.records])
    world.serve(world.outside, OUTSIDE4, 8080, lambda connection: connection.sendall(b"hi"))
    with world.connect(OUTSIDE4, 8080) as connection:
        assert connection.recv(10) == b"hi"
    assert adopted.counters()["accepted"] == 1
    ((_, port),) = world.on_host(lambda: adopted.publish([Port(HOST4, 0, 80)]))
    assert port
    adopted.destroy()
    assert_nothing_left(world)


def test_network_whose_engine_died_is_adopted_only_to_be_destroyed(world: World) -> None:
    network = world.up()
    os.kill(engine_record(world)["pid"], signal.SIGKILL)
    world.wait_until(lambda: not network.alive())
    world.abandon(network)
    adopted = world.new_network()
    assert not adopted.adopt(world.records)
    adopted.destroy()
    assert_nothing_left(world)


def test_two_networks_on_one_host_do_not_meet(world: World) -> None:
    first = world.up()
    world.addresses = plan_addresses(8)
    second = world.new_network(name="other")
    world.on_host(second.create)
    world.on_host(second.serve)
    assert first.alive()
    assert second.counters()["active"] == 0
    second.destroy()
    assert first.counters()["faults"] == 0
