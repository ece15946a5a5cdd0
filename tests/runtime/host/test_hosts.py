"""Hosts: how blobs get there and ports get back, and a zoned that is started when it is needed."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.servedmanager import ScriptedManager, zoned

from pipeline.bundle.model import Port
from pipeline.errors import StoreDamaged
from pipeline.oci import Descriptor, Digest
from pipeline.progress import Progress
from pipeline.store import Store
from runtime.host import hosts
from runtime.host.api import host_pb2 as pb
from runtime.host.client.endpoint import BadHostAddress
from runtime.host.faults import HostDown, RemoteFault
from runtime.host.hosts import BlobInUse, LabHost, RemoteHost, XenHost, select_host
from runtime.host.upload import NotAsked


class StoringManager(ScriptedManager):
    """Lacks every blob it was not sent."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[Digest, bytes] = {}

    async def find_blobs(self, blobs: Any) -> list[Digest]:
        return [blob.digest for blob in blobs if blob.digest not in self.blobs]

    async def put_blob(self, blob: Descriptor, chunks: Any) -> None:
        await super().put_blob(blob, chunks)
        self.blobs[blob.digest] = self.seen[-1]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def manager() -> StoringManager:
    return StoringManager()


@pytest.fixture
def far(tmp_path: Path, manager: StoringManager, store: Store) -> Iterator[RemoteHost]:
    with zoned(manager, tmp_path / "s"):
        host = select_host(store, f"unix:{tmp_path}/s")
        assert isinstance(host, RemoteHost)
        yield host


def test_what_a_host_lacks_is_sent_to_it_once(far: RemoteHost, manager: StoringManager, store: Store) -> None:
    data = [os.urandom(2_500_000), b"", b"small"]
    blobs = [store.put(piece) for piece in data]
    with far.connect() as client:
        far.provide(client, [*blobs, blobs[0]], Progress())
        assert manager.blobs == {blob.digest: piece for blob, piece in zip(blobs, data, strict=True)}
        manager.seen.clear()
        far.provide(client, blobs, Progress())
        assert manager.seen == []


def test_a_blob_that_is_damaged_or_gone_here_is_not_passed_on(
    far: RemoteHost, manager: StoringManager, store: Store
) -> None:
    blob = store.put(b"whole")
    path = store.path(blob.digest)
    path.chmod(0o600)
    path.write_bytes(b"other")
    with far.connect() as client:
        with pytest.raises(RemoteFault) as caught:
            far.provide(client, [blob], Progress())
        assert caught.value.kind == "DigestMismatch"
        path.unlink()
        with pytest.raises(StoreDamaged, match="as the host has not got it"):
            far.provide(client, [blob], Progress())
    assert manager.blobs == {}


def test_host_that_wants_what_it_was_not_asked_about_is_refused_in_a_sentence(
    far: RemoteHost, manager: StoringManager, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def another(blobs: Any) -> list[Digest]:
        return [Digest.of(b"another")]

    monkeypatch.setattr(manager, "find_blobs", another)
    with far.connect() as client, pytest.raises(NotAsked, match="expected a blob it was told of to be missing"):
        far.provide(client, [store.put(b"one")], Progress())


@pytest.mark.parametrize(
    ("address", "asked", "seen"),
    [
        ("tls://web1", "0.0.0.0", "web1"),
        ("tls://web1", "127.0.0.1", "127.0.0.1"),
        ("ssh://me@web1", "::", "web1"),
        ("unix:/s", "0.0.0.0", "0.0.0.0"),
    ],
)
def test_ports_of_another_machine_are_open_on_it(store: Store, address: str, asked: str, seen: str) -> None:
    (rule,) = select_host(store, address).listen_for([Port(asked, 8080, 80)])
    assert (rule.address, rule.port, rule.zone_port) == (asked, 8080, 80)
    assert (rule.host_address, rule.host_port) == (seen, 8080)


def test_an_address_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(BadHostAddress, match=r"ssh://\[USER@\]HOST"):
        select_host(store, "moon")


# -- this machine's own zoned ------------------------------------------------------------------------------------------


@pytest.fixture
def no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hosts, "SYSTEMD", tmp_path / "none")


def test_a_zoned_that_is_up_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with zoned(ScriptedManager(), tmp_path / "s"):
        host = XenHost(Store(tmp_path / "store"), path=tmp_path / "s")
        assert host.is_up()
        host.up(Progress())
    assert not host.is_up()


@pytest.mark.usefixtures("no_systemd")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root's zoned is started")
def test_a_zoned_that_does_not_come_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "ZONED_START_TIMEOUT_S", 0.5)
    monkeypatch.setattr(sys, "executable", _program(tmp_path / "python", "echo 'error: no Xen here' >&2; exit 1"))
    host = XenHost(Store(tmp_path / "store"), path=tmp_path / "run" / "s")
    with pytest.raises(HostDown, match="got error: no Xen here"):
        host.up(Progress())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root's zoned is started")
def test_systemd_starts_a_zoned_it_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "SYSTEMD", tmp_path)
    monkeypatch.setattr(hosts, "ZONED_START_TIMEOUT_S", 0.5)
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    host = XenHost(Store(tmp_path / "store"), path=tmp_path / "run" / "s")
    _program(directory / "systemctl", f"echo $* >{tmp_path}/asked")
    with pytest.raises(HostDown, match="it to listen"):
        host.up(Progress())
    assert (tmp_path / "asked").read_text() == "start zoned.service\n"
    _program(directory / "systemctl", "echo 'Job for zoned.service failed.' >&2; exit 1")
    with pytest.raises(HostDown, match="systemd to start it, got Job for"):
        host.up(Progress())
    _program(directory / "systemctl", "exec tail -f /dev/null")
    with monkeypatch.context() as patches, pytest.raises(HostDown, match="systemd to start it within"):
        patches.setattr(hosts, "SYSTEMD_TIMEOUT_S", 0.1)
        host.up(Progress())
    started: list[Any] = []
    monkeypatch.setattr(hosts, "_start", lambda *arguments: started.append(arguments))
    _program(directory / "systemctl", "exit 5")  # it has no such unit
    with pytest.raises(HostDown, match="it to listen"):
        host.up(Progress())
    assert len(started) == 1


def _program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# -- the lab -----------------------------------------------------------------------------------------------------------


class FakeLab:
    """The part of a lab a host uses."""

    dom0_address = "10.0.2.15"

    def __init__(self) -> None:
        self.plugged: list[str] = []
        self.ports: dict[tuple[str, int, str], int] = {}
        self.stale: set[str] = set()

    def is_stale(self, blob: Descriptor) -> bool:
        return str(blob.digest) in self.stale

    def attach(self, blob: Descriptor) -> str:
        self.plugged.append(str(blob.digest))
        return blob.digest.hex[:20]

    def detach(self, digest: str) -> None:
        self.stale.discard(digest)
        self.plugged.remove(digest)

    def attached(self) -> list[str]:
        return list(self.plugged)

    def find_free(self, wanted: Any) -> list[int]:
        return [port or 50000 + at for at, (_, port, _) in enumerate(wanted)]

    def forward(self, address: str, port: int, dom0_port: int, protocol: str) -> None:
        self.ports[address, port, protocol] = dom0_port

    def unforward(self, address: str, port: int, protocol: str) -> None:
        del self.ports[address, port, protocol]

    def forwards(self) -> dict[tuple[str, int, str], int]:
        return dict(self.ports)

    def own_forwards(self) -> set[tuple[str, int, str]]:
        return {("127.0.0.1", 2222, "tcp")}

    def exclusive(self) -> Any:
        return contextlib.nullcontext()


class FakeClient:
    """Answers ListZones with one zone."""

    host = type("Stub", (), {"ListZones": None})

    def __init__(self, **zone: Any) -> None:
        self._zones = [pb.ZoneInfo(name="web", **zone)] if zone else []

    def call(self, method: Any, request: Any) -> Any:
        return pb.ListZonesReply(zones=self._zones)


def test_a_lab_gets_blobs_as_disks_and_gives_ports_back(store: Store) -> None:
    lab: Any = FakeLab()
    host = LabHost(store, lab)
    blob = store.put(b"x")
    client: Any = FakeClient()
    host.provide(client, [blob], Progress())
    assert lab.plugged == [str(blob.digest)]
    rules = host.listen_for([Port("127.0.0.1", 8080, 80), Port("127.0.0.1", 0, 53, "udp")])
    assert [(rule.address, rule.port, rule.host_port, rule.protocol) for rule in rules] == [
        ("10.0.2.15", 0, 8080, "tcp"),
        ("10.0.2.15", 0, 50001, "udp"),
    ]
    rules[0].port, rules[1].port = 40001, 40001  # as zoned chose
    host.expose(rules)
    assert lab.ports == {("127.0.0.1", 8080, "tcp"): 40001, ("127.0.0.1", 50001, "udp"): 40001}


def test_a_lab_keeps_what_zones_use_and_a_few_idle_disks(store: Store) -> None:
    lab: Any = FakeLab()
    host = LabHost(store, lab)
    blobs = [store.put(bytes([number])) for number in range(hosts.IDLE_DISKS + 3)]
    host.provide(FakeClient(), blobs, Progress())  # type: ignore[arg-type]
    forwards = ((8080, "tcp", 1), (8080, "udp", 1), (8081, "tcp", 2), (8082, "udp", 3), (2222, "tcp", 22))
    lab.ports = {("127.0.0.1", port, protocol): dom0_port for port, protocol, dom0_port in forwards}
    used = str(blobs[0].digest)
    rules = ((8080, 1), (8082, 4))  # the second was restarted, and is elsewhere since
    ports = [
        pb.PortRule(host_address="127.0.0.1", host_port=port, port=dom0_port, protocol="udp")
        for port, dom0_port in rules
    ]
    client: Any = FakeClient(blobs=[used], ports=ports)
    host.tidy(client)
    assert used in lab.plugged and len(lab.plugged) == hosts.IDLE_DISKS + 1
    assert set(lab.ports) == {("127.0.0.1", 8080, "udp"), ("127.0.0.1", 2222, "tcp")}


def test_a_blob_that_was_replaced_is_plugged_anew_unless_a_zone_runs_from_it(store: Store) -> None:
    lab: Any = FakeLab()
    host = LabHost(store, lab)
    blob = store.put(b"x")
    idle: Any = FakeClient()
    host.provide(idle, [blob], Progress())
    lab.stale = {str(blob.digest)}
    with pytest.raises(BlobInUse, match="stop web first"):
        host.provide(FakeClient(blobs=[str(blob.digest)]), [blob], Progress())  # type: ignore[arg-type]
    host.provide(idle, [blob], Progress())
    assert lab.plugged == [str(blob.digest)] and not lab.stale
