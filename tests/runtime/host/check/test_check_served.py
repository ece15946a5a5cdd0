"""What zoned answers to `zone system check`, with its own places: a leak in each of them is told, and what it needs for
its work is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.certs import Authority
from support.checking import UUID, CheckedHost, checked_host, end_orphan, orphan, small_plan

from pipeline.store import Store
from runtime.boot.abi import hypercall, rings
from runtime.host.api import host_pb2 as pb
from runtime.host.check.look_host import IMAGE_TASK
from runtime.host.check.model import HostPort
from runtime.host.daemon import hoststate
from runtime.host.daemon.core import Settings, Unread
from runtime.host.daemon.model import PortRule
from runtime.host.daemon.ports import HeldPorts
from runtime.host.images import tasks
from runtime.host.ledger import LedgerDir
from runtime.host.serve.checking import Checker
from runtime.host.serve.server import HostServer
from runtime.net.sockets import bind_udp
from runtime.net.strays import ENTRY
from runtime.share.backend import ENTRY as SHARE_ENTRY

HOST4 = "127.0.0.1"
# Other tests of this machine have some of these as well.
SHARED = ("netns", "process", "mount", "vif", "loop", "port")
Told = set[tuple[str, str]]


@dataclass
class Zoned:
    """A host of the zone `known`, whose scratch disk and port are its.

    `diskless` is another, that has ended; `unread` one of which no more is known than its name.
    """

    host: CheckedHost
    core: Any
    state: Path
    serving: Callable[[], Iterable[HostPort]] = tuple

    @property
    def run(self) -> Path:
        return self.host.run

    @property
    def tmp(self) -> Path:
        return self.state / "store" / "tmp"

    def reply(self) -> pb.CheckReply:
        return asyncio.run(Checker(lambda: hoststate.check(self.core, self.serving))())

    def told(self) -> Told:
        return {(finding.kind, finding.what) for finding in self.reply().findings}


@pytest.fixture
def zoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zoned]:
    state = tmp_path / "state"
    store = Store(state / "store")
    with checked_host(tmp_path, "", monkeypatch) as host:
        for name in ("zoned.sock", "zoned.lock", "zoned.json", "zoned.log", "agent.log", "boot", "configured", "up"):
            (host.run / name).touch()
        (host.run / "tls").mkdir()
        (host.run / "tls" / "server.key").touch()
        for kind in ("logs", "scratch"):
            for name in ("known", "unread"):
                (state / kind / name).mkdir(parents=True)
                (state / kind / name / "file").touch()
        (state / "logs" / "diskless").mkdir()
        (host.run / "net" / "web").mkdir(parents=True)
        ledger = host.ledgers.create("0f0e0d0c")
        ledger.record("zone", name="web", id="known")
        ledger.record("net.directory", path=str(host.run / "net" / "web"))
        built = host.build(ledger, small_plan(tmp_path))
        zones = {
            name: SimpleNamespace(id=name, bundle=SimpleNamespace(scratch_mib=size_mib), held=HeldPorts())
            for name, size_mib in (("known", 16), ("diskless", 0))
        }
        core = SimpleNamespace(
            settings=Settings(host.run, state),
            zones=zones,
            unread={"unread": Unread("other", "its row cannot be read")},
            scratch_of=lambda zone: state / "scratch" / zone.id,
            logs_dir=lambda zone_id: state / "logs" / zone_id,
            scratch_dir=lambda zone_id: state / "scratch" / zone_id,
            ledgers=host.ledgers,
            network_ledgers=LedgerDir(host.run / "networks"),
            ending=set(),
            edge=SimpleNamespace(
                hypervisor=host.hypervisor(), xenstore=host.xenstore, stores=(store.root, host.directory / "other")
            ),
        )
        core.network_ledgers.create("shared").record("network", name="shared")
        yield Zoned(host, core, state)
        for zone in zones.values():
            zone.held.release()
        built.destroy()


def test_what_zoned_needs_for_its_work_is_not_told(zoned: Zoned, tmp_path: Path) -> None:
    """Ledgers, its socket and locks, a zone's logs, scratch disk and ports, an upload and an import under way."""
    rules = [PortRule(80, address=HOST4), PortRule(53, protocol="udp", address=HOST4)]
    for name in ("known", "diskless"):
        zoned.core.zones[name].held.take(name, rules)
    held = [zone.held.held() for zone in zoned.core.zones.values()]
    assert [port.protocol for ports in held for port in ports] == ["tcp", "udp"] * 2
    store = Store(zoned.state / "store")
    with store.writer() as writer, store.scratch() as scratch:
        writer.write(b"half of it")
        (scratch / "archive.tar").write_bytes(b"some of it")
        assert len(list(zoned.tmp.iterdir())) == 2
        reply = zoned.reply()
    assert [finding for finding in reply.findings if finding.kind not in SHARED] == []
    ports = {str(port) for ports in held for port in ports}
    assert ports & {finding.what for finding in reply.findings} == set()
    assert (reply.looked_at["domains"], reply.looked_at["ledgers"]) == (1, 2)
    assert list(reply.unseen) == []


# -- plants ------------------------------------------------------------------------------------------------------------

Plant = Callable[[Zoned, contextlib.ExitStack], Told]


def file_at(*words: str, directory: bool = False) -> Plant:
    """A plant: a file, or a directory with a file in it, below the host's own."""

    def plant(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
        path = zoned.host.directory.joinpath(*words)
        if directory:
            path.mkdir()
            undo.callback(path.rmdir)
        file = path / "file" if directory else path
        file.touch()
        undo.callback(file.unlink)
        return {("file", str(path))}

    return plant


def plant_upload(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    """Half a blob, of a process that was killed while it came."""
    return killed_in("with store.writer() as writer: writer.write(b'half'); said(); time.sleep(600)", zoned, undo)


def plant_import(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    """The archive of an import, of a process that was killed while it came."""
    work = "with store.scratch() as path: (path / 'archive.tar').touch(); said(); time.sleep(600)"
    return killed_in(work, zoned, undo)


def killed_in(work: str, zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    lines = [
        "import pathlib, sys, time",
        "from pipeline.store import Store",
        "store = Store(pathlib.Path(sys.argv[1]))",
        "said = lambda: print('there', flush=True)",
        work,
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(zoned.state / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        assert not [what for kind, what in zoned.told() if kind == "file"], "somebody works there"
        process.kill()
    undo.callback(lambda: Store(zoned.state / "store").sweep())
    (left,) = zoned.tmp.iterdir()
    return {("file", str(left))}


def plant_index(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    """A document that was never published."""
    return file_at("state", "store", "tmp", ".index.json.partial")(zoned, undo)


def plant_listener(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    listener = undo.enter_context(socket.create_server((HOST4, 0)))
    return {("port", f"{HOST4}:{listener.getsockname()[1]}")}


def plant_udp_listener(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    listener = undo.enter_context(bind_udp(HOST4, 0))
    return {("port", f"{HOST4}:{listener.getsockname()[1]}/udp")}


def plant_forgotten_port(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    """One that a zone was published on, of a zone that is no more."""
    held = HeldPorts()
    undo.callback(held.release)
    (rule,) = held.take("gone", [PortRule(80, address=HOST4)])
    return {("port", f"{HOST4}:{rule.port}")}


def sleeper(entry: str, undo: contextlib.ExitStack) -> int:
    """The pid of a process that looks like one of ours."""
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(600)  # {entry}"])
    undo.callback(child.wait)
    undo.callback(child.kill)
    return child.pid


def plant_engine(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    return {("process", f"{sleeper(ENTRY, undo)} (a network engine)")}


def plant_share(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    return {("process", f"{sleeper(SHARE_ENTRY, undo)} (serves a directory)")}


def plant_image_task(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    pid = orphan(IMAGE_TASK)
    undo.callback(end_orphan, pid)
    return {("process", f"{pid} (an image task)")}


def plant_zombie(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    undo.callback(child.wait)
    return {("process", f"{child.pid} (true)")}


def plant_domain(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    domid = zoned.host.hypervisor().create_domain("1" + UUID[1:], max_vcpus=1)
    undo.callback(zoned.host.xen.domains.pop, domid, None)
    return {("domain", f"{domid} (1{UUID[1:]})")}


def plant_grant(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    """Two pages of a dying domain that this host has mapped, one that is offered and not used."""
    xen, hypervisor = zoned.host.xen, zoned.host.hypervisor()
    domid = hypervisor.create_domain("1" + UUID[1:], max_vcpus=1)
    for reference, used in ((8, rings.GTF_IN_USE), (9, rings.GTF_IN_USE), (10, 0)):
        struct.pack_into("<HHI", xen.domains[domid].grants, 8 * reference, rings.GTF_PERMIT_ACCESS | used, 0, 1)
    xen.lingering.add(domid)
    hypervisor.destroy_domain(domid)
    undo.callback(xen.release, domid)
    undo.callback(xen.lingering.clear)
    what = f"{domid} (1{UUID[1:]})"
    (problem,) = (finding.problem for finding in zoned.reply().findings if finding.kind == "grant")
    assert problem == "domain 0 still maps 2 pages of this dying domain"
    return {("domain", what), ("grant", what)}


def plant_channel(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    zoned.host.xen.ports[4] = (hypercall.EVTCHNSTAT_UNBOUND, 12, 0)
    undo.callback(zoned.host.xen.ports.clear)
    return {("event channel", "4 of dom0")}


def plant_tree(zoned: Zoned, undo: contextlib.ExitStack) -> Told:
    zoned.host.xenstore.write("/local/domain/12/name", "old")
    undo.callback(zoned.host.xenstore.remove, "/local/domain/12")
    return {("xenstore", "/local/domain/12")}


PLANTS: dict[str, Plant] = {
    "file in the run directory": file_at("run", "old"),
    "directory in the run directory": file_at("run", "old", directory=True),
    "socket that was not put in place": file_at("run", ".zoned.sock.new"),
    "no ledger": file_at("run", "ledger", "old.jsonl.new"),
    "no network's ledger": file_at("run", "networks", "old"),
    "network": file_at("run", "net", "old", directory=True),
    "logs": file_at("state", "logs", "old", directory=True),
    "file in logs": file_at("state", "logs", "old"),
    "scratch disk": file_at("state", "scratch", "old", directory=True),
    "scratch disk of a zone without one": file_at("state", "scratch", "diskless", directory=True),
    "upload": plant_upload,
    "import": plant_import,
    "unpublished index": plant_index,
    "listener": plant_listener,
    "udp listener": plant_udp_listener,
    "forgotten port": plant_forgotten_port,
    "engine": plant_engine,
    "share": plant_share,
    "image task": plant_image_task,
    "zombie": plant_zombie,
    "domain": plant_domain,
    "grant": plant_grant,
    "event channel": plant_channel,
    "tree": plant_tree,
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_leak_that_is_planted_is_told_alone_and_when_it_is_gone_no_more(zoned: Zoned, plant: Plant) -> None:
    before = zoned.told()
    assert {kind for kind, _ in before} <= set(SHARED)
    with contextlib.ExitStack() as undo:
        planted = plant(zoned, undo)
        reply = zoned.reply()
        found = {(finding.kind, finding.what) for finding in reply.findings}
        assert planted <= found
        assert {told for told in found - before if told[0] not in SHARED} <= planted
        mine = [finding for finding in reply.findings if (finding.kind, finding.what) in planted]
        assert all(finding.problem and (finding.remedy or finding.kind == "process") for finding in mine)
    assert planted & zoned.told() == set()


def test_what_a_teardown_under_way_has_not_reached_is_no_leak_and_what_it_leaves_is_one(zoned: Zoned) -> None:
    """As between the end of a domain and that of its trees, which a slow kernel may make long."""
    looks: list[int] = []
    with contextlib.ExitStack() as undo:
        (going,) = plant_domain(zoned, undo)
        (left,) = plant_tree(zoned, undo)
        zoned.core.ending.add("another run")

        def serving() -> list[HostPort]:  # asked at the end of each look
            looks.append(len(looks))
            if len(looks) == 4:
                zoned.host.xen.domains.pop(int(going[1].split()[0]))
                zoned.core.ending.clear()
            return []

        zoned.serving = serving
        told = zoned.told()
    assert left in told
    assert going not in told
    assert len(looks) == 5, "once more when nothing goes any longer"


def test_image_task_of_this_zoned_is_no_leak(zoned: Zoned) -> None:
    assert IMAGE_TASK in tasks.COMMAND
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", IMAGE_TASK])
    try:
        assert ("process", f"{child.pid} (an image task)") not in zoned.told()
    finally:
        child.kill()
        child.wait()


def test_port_of_the_api_is_no_leak(zoned: Zoned, tmp_path: Path) -> None:
    """As zoned serves it, with credentials; a server that has been closed vouches for nothing."""
    authority, tls = Authority(tmp_path / "authority"), tmp_path / "tls"
    tls.mkdir()
    files = (authority.ca, *authority.issue(HOST4))
    for name, file in zip(("ca.pem", "server.pem", "server.key"), files, strict=True):
        file.rename(tls / name)
    (tls / "listen").write_text(f"{HOST4}:0")

    async def work() -> None:
        server = HostServer([], path=tmp_path / "api.sock", tls=[tls])
        assert server.ports() == []
        await server.start()
        (port,) = server.ports()
        assert port.address == HOST4
        unknown = await hoststate.check(zoned.core)
        known = await hoststate.check(zoned.core, server.ports)
        await server.close()
        told = [{finding.what for finding in report.findings if finding.kind == "port"} for report in (unknown, known)]
        assert [str(port) in whats for whats in told] == [True, False]
        assert server.ports() == []

    asyncio.run(work())
