"""A network by itself: one program, one declaration, no zoned."""

from __future__ import annotations

import fcntl
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from support.networld import HOST4, OUTSIDE4, VIF, World, digest_then_echo, receive_all

from pipeline.bundle.model import Port
from runtime.net import netns
from runtime.net.__main__ import main
from runtime.net.declared import DeclaredLedger, DeclaredZone, kept, parse
from runtime.net.errors import NetworkFault
from runtime.net.segment import Record
from runtime.net.teardown import directories

PROJECT = Path(__file__).resolve().parents[3]
PORT = {"host_address": HOST4, "host_port": 8080, "zone_port": 80}


def test_declaration_says_all_that_a_network_is_made_of() -> None:
    zone = {"name": "web", "vif": "vif4.0", "host": 3, "egress": ["deny any"], "ports": [PORT]}
    declared = parse(json.dumps({"name": "back", "index": 9, "zones": [zone]}))
    assert (declared.name, declared.index, declared.mtu) == ("back", 9, 1500)
    assert declared.zones == (DeclaredZone("web", "vif4.0", 3, egress=("deny any",), ports=(Port(HOST4, 8080, 80),)),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no attribute"),
        ("{", "Expecting"),
        ('{"name": "x"}', "index"),
        ('{"name": "x", "index": "9"}', "index: '9' is no int"),
        ('{"name": "x", "index": 1, "zones": [{"name": "a"}]}', "vif"),
        ('{"name": "x", "index": 1, "zone": []}', "unexpected"),
    ],
)
def test_declaration_that_is_none_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(NetworkFault, match=f"network declaration: expected one JSON object, got .*{said}"):
        parse(text)


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ({"egress": "deny any"}, "egress: 'deny any' is no list of texts"),
        ({"egress": [1]}, "egress: .1. is no list of texts"),
        ({"egress": ["deny"]}, "egress rule 'deny': expected"),
        ({"ports": [PORT | {"host_port": 65536}]}, "port 65536:80 of zone web is none"),
        ({"ports": [PORT | {"zone_port": 0}]}, "port 8080:0 of zone web is none"),
        ({"host": 3}, "host 3 is two zones'"),
        ({"egress": ["allow 224.0.0.1"]}, "what a rule can open, not multicast addresses"),
        ({"egress": ["allow 172.30.4.2"]}, "what a rule can open, not another zone network addresses"),
        ({"egress": ["deny any"] * 257}, "zone web has more than 256 egress rules"),
        ({"bandwidth_bit_s": 1}, "bandwidth of zone web is none from 64000 to 100000000000 bit/s"),
        ({"bandwidth_bit_s": -1}, "bandwidth of zone web is none"),
    ],
)
def test_declaration_with_a_zone_that_cannot_be_is_refused_before_anything_is_made(
    zone: dict[str, Any], said: str
) -> None:
    zones = [{"name": "db", "vif": "vif3.0", "host": 3}, {"name": "web", "vif": "vif4.0"} | zone]
    with pytest.raises(NetworkFault, match=f"^network declaration: expected one JSON object, got .*{said}"):
        parse(json.dumps({"name": "back", "index": 9, "pool4": "172.30.0.0/16", "zones": zones}))


@pytest.mark.parametrize("data", [b"\xff\xfe", b'{"name": "b\xe4ck", "index": 9}', b"[" * 100_000])
def test_file_that_is_no_declaration_is_refused_in_a_sentence(
    tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "network.json"
    path.write_bytes(data)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert main([str(path)]) == 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert capsys.readouterr().err.startswith("error: network declaration: expected one JSON object, got ")


def test_declaration_that_denies_what_is_no_network_is_refused() -> None:
    with pytest.raises(NetworkFault, match=r"^network declaration: .*10\.0\.0\.1/8 has host bits set"):
        parse(json.dumps({"name": "back", "index": 9, "deny": ["10.0.0.1/8"]}))


@pytest.mark.parametrize("name", ["../back", "a/b", "", "back\0", "back\n"])
def test_declared_network_whose_name_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(NetworkFault, match="expected a name of letters, digits"):
        parse(json.dumps({"name": name, "index": 9}))


def test_network_that_another_program_keeps_is_refused_and_stays(tmp_path: Path) -> None:
    ledger, theirs = DeclaredLedger(tmp_path / "back.ledger"), tmp_path / "@back"
    # Its MTU is none that can be: were it taken, the test would make nothing on this host.
    declared = parse(json.dumps({"name": "back", "index": 9, "mtu": 1, "run": str(tmp_path)}))
    with ledger.held():
        ledger.record("net.directory", path=str(theirs))
        theirs.mkdir()
        with pytest.raises(NetworkFault, match=r"^network back: another program keeps it$"), kept(declared):
            pass
    assert theirs.is_dir() and len(ledger.records()) == 1


class StuckSegment:
    """A network whose namespace does not go."""

    def __init__(self, name: str, addresses: Any, mtu: int, record: Record, **options: Any) -> None:
        self._record = record

    def create(self) -> None:
        self._record("net.netns", name="zw-@back")

    def destroy(self) -> None:
        raise NetworkFault("network namespace zw-@back", expected="it removed", got="busy")


class NoSupervisor:
    def __init__(self, *, resolv_conf: Path) -> None:
        pass

    def add(self, segment: StuckSegment) -> None:
        pass

    def discard(self, segment: StuckSegment) -> None:
        pass

    def close(self) -> None:
        pass


def test_ledger_of_a_network_of_which_something_stays_names_it_to_who_makes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def teardown(records: Iterable[Any]) -> None:
        for _ in records:
            StuckSegment.destroy(cast(Any, None))

    declared = parse(json.dumps({"name": "back", "index": 9, "run": str(tmp_path)}))
    monkeypatch.setattr("runtime.net.declared.Segment", StuckSegment)
    monkeypatch.setattr("runtime.net.declared.EngineSupervisor", NoSupervisor)
    with monkeypatch.context() as patched:
        patched.setattr("runtime.net.declared.teardown", teardown)
        with pytest.raises(NetworkFault, match="busy"), kept(declared):
            pass
    assert [record["name"] for record in DeclaredLedger(tmp_path / "back.ledger").records()] == ["zw-@back"]
    monkeypatch.setattr("runtime.net.declared.teardown", lambda records: None)
    monkeypatch.setattr(StuckSegment, "destroy", lambda self: None)
    with kept(declared):
        pass
    assert list(tmp_path.iterdir()) == []


def test_ledger_that_was_taken_away_as_it_was_opened_is_not_the_one_that_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, flock = DeclaredLedger(tmp_path / "back.ledger"), fcntl.flock

    def late(fd: int, how: int) -> None:
        monkeypatch.undo()
        ledger.path.unlink()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with ledger.held(), pytest.raises(NetworkFault), DeclaredLedger(ledger.path).held():
        pass


def start(world: World, document: dict[str, Any]) -> subprocess.Popen[str]:
    """The program on the world's host; returns when it serves."""
    path = world.directory / "network.json"
    path.write_text(json.dumps(document))

    def run() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "runtime.net", str(path)]
        return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    process = world.on_host(run)
    world.stack.callback(process.wait)
    world.stack.callback(process.kill)
    return process


def served(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return json.loads(line)


@pytest.mark.root
def test_declared_network_serves_until_it_is_told_to_end_and_after_a_kill_it_is_made_again(world: World) -> None:
    before = world.state_of_host()
    name = f"d{world.host[3:].partition('-')[0]}"
    document = {
        "name": name,
        "index": 7,
        "run": str(world.directory / "run"),
        "resolv_conf": str(world.resolv_conf),
        "zones": [{"name": "web", "host": 2, "vif": VIF, "egress": ["deny any 25/tcp"], "ports": [PORT]}],
    }
    port = world.serve(world.outside, OUTSIDE4, 0, digest_then_echo)
    world.serve(world.zone, world.addresses.zone4, 80, lambda connection: connection.sendall(b"zone"))
    process = start(world, document)
    assert served(process) == {"web": [f"{HOST4}:8080"]}
    namespace = f"zw-@{name}"
    assert netns.path_of(namespace).exists()
    ledger = DeclaredLedger(world.directory / "run" / f"{name}.ledger")
    assert list(directories(ledger.records())) == [str(ledger.directory)]

    def works() -> None:
        with world.connect(OUTSIDE4, port) as connection:
            connection.sendall(b"declared")
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection)[32:] == b"declared"
        with pytest.raises(ConnectionRefusedError):
            world.connect(OUTSIDE4, 25)
        with world.of(world.outside, lambda: socket.create_connection((HOST4, 8080), 30)) as connection:
            assert receive_all(connection) == b"zone"

    works()
    _, said = start(world, document).communicate(timeout=60)
    assert said == f"error: network {name}: another program keeps it\n"
    works()
    process.kill()
    process.wait()
    assert netns.path_of(namespace).exists(), "nobody took it down"
    world.ip(namespace, f"link del {VIF}")
    world.ip(world.host, f"link add {VIF} type veth peer name eth0 netns {world.zone}")
    zone = world.addresses
    world.ip(
        world.zone,
        f"link set eth0 address {zone.zone_mac}",
        f"address add {zone.zone4}/{zone.prefix4} dev eth0",
        "link set eth0 up",
        f"route add default via {zone.gateway4}",
    )
    process = start(world, document)
    served(process)
    works()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not netns.path_of(namespace).exists()
    assert list((world.directory / "run").iterdir()) == []
    assert world.state_of_host()["routes"] == before["routes"]


@pytest.mark.root
def test_declared_network_that_cannot_be_made_leaves_nothing(world: World) -> None:
    name = f"e{world.host[3:].partition('-')[0]}"
    zone = {"name": "web", "host": 2, "vif": "vif99.0"}
    process = start(world, {"name": name, "index": 7, "run": str(world.directory / "run"), "zones": [zone]})
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (1, 1)
    assert said.startswith("error: ") and "vif99.0" in said
    assert not netns.path_of(f"zw-@{name}").exists()
    assert list((world.directory / "run").iterdir()) == []
