"""A whole host for the core: a simulated Xen and xenstored, networks that note what is done to them, agents in memory.

A manager can be killed: from that moment on nothing it does has any effect, as after kill -9; the next one starts on
what Xen, xenstore, ledgers, database and logs then hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Bundle, Network, Process, Resources
from pipeline.oci import Descriptor, Digest
from runtime.boot import domain as domains
from runtime.boot import vbd
from runtime.boot.domain import Domain
from runtime.boot.doors import Hypervisor
from runtime.boot.errors import DeviceFault
from runtime.boot.watch import Deaths
from runtime.boot.xenstore import XenStore
from runtime.host import ledger as ledgers
from runtime.host import sources
from runtime.host.daemon import database as databases
from runtime.host.daemon.core import Settings
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import BootRequest
from runtime.share.model import ShareSpec
from support.fakecapture import FakeCapture
from support.fakeguest import FakeLink, Guest
from support.hostnetworks import FakeNetwork, FakeSegment
from support.hypervisor import FakeXen
from support.kernels import kernel_elf
from support.xenstored import FakeXenstored

MEMORY_MIB = 48


class Killed(BaseException):
    """The process is gone."""


class SharedXen(FakeXen):
    """The simulated Xen for several threads; a dead process makes no hypercalls."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.host, self.lock = host, threading.RLock()

    def hypercall(self, name: str, number: int, *arguments: int) -> int:
        self.host.alive()
        with self.lock:
            return super().hypercall(name, number, *arguments)


class FakeClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.time, self.sleepers = 1_000_000.0, {}  # type: ignore[var-annotated]

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self.sleepers[future] = self.time + seconds
        try:
            await future
        finally:
            self.sleepers.pop(future, None)

    def waited_for(self, seconds: float) -> bool:
        """Does somebody wait for so long?"""
        return any(abs(due - self.time - seconds) < 1e-6 for due in self.sleepers.values())

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        for future, due in list(self.sleepers.items()):
            if due <= self.time and not future.done():
                future.set_result(None)


class FakeLoop:
    """A loop device; the host knows those that are held, and the files behind those that a zone has."""

    def __init__(self, host: Host, path: Path, *, readonly: bool) -> None:
        self.host, self.device = host, Path("/dev/loop7" if readonly else "/dev/loop8")
        host.loops.append(self)
        host.backed[str(self.device)] = str(path)

    def close(self) -> None:
        if self in self.host.loops:
            self.host.loops.remove(self)
            self.host.backed.pop(str(self.device), None)


class FakeShare:
    """A directory that is served; the host knows the processes that serve, and which of them are followed."""

    def __init__(self, host: Host, uuid: str, spec: ShareSpec, *, adopted: bool) -> None:
        self.host, self.place = host, (uuid, spec.number)
        host.step("share")
        assert adopted or self.place not in host.shares, "a number that is another's"
        host.shares[self.place] = spec.path
        host.followed.add(self.place)
        host.step("share done")

    def connected(self) -> bool:
        self.host.step("connect")
        if self.host.connect_fails is not None:
            raise self.host.connect_fails
        return self.host.connects

    def not_connected(self, got: str) -> DeviceFault:
        return DeviceFault("zone web", got=got, temporary=True)

    def let_go(self) -> None:
        self.host.followed.discard(self.place)

    def close(self) -> None:
        self.host.step("unshare")
        self.host.followed.discard(self.place)
        self.host.shares.pop(self.place, None)
        self.host.step("unshare done")


class HostEdge(Edge):
    """The edge of one manager of a host."""

    host: Host

    def loop(self, path: Path, record: Callable[..., None], *, readonly: bool = True) -> Any:
        record("loop", device="/dev/loop7" if readonly else "/dev/loop8", file=str(path))
        return FakeLoop(self.host, path, readonly=readonly)

    def loops(self) -> dict[str, str]:
        return dict(self.host.backed)

    def share(self, domain: Domain, share: ShareSpec, ledger: Any, log_file: Path, *, adopted: bool) -> Any:
        return FakeShare(self.host, domain.uuid, share, adopted=adopted)

    def plug_share(self, domain: Domain, tag: str, number: int, record: Callable[..., None]) -> None:
        super().plug_share(domain, tag, number, record)
        self.host.step("plug share done")

    def unplug_share(self, domain: Domain, tag: str, number: int, record: Callable[..., None]) -> None:
        self.host.step("unplug share")
        super().unplug_share(domain, tag, number, record)

    def check_scratch(self, directory: Path, size_mib: int, subject: str) -> None:
        if self.host.scratch_fails is not None:
            raise self.host.scratch_fails

    def make_scratch(self, path: Path, size_mib: int, subject: str) -> None:
        self.host.step("scratch")
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.host.format_fails is not None:
            raise self.host.format_fails
        if not path.exists():
            path.write_bytes(b"new")
        self.host.step("scratch done")

    def teardown(self, records: Any) -> None:
        self.host.alive()
        if self.host.teardown_fails is not None:
            raise self.host.teardown_fails
        super().teardown([record for record in records if not str(record["kind"]).startswith("net.")])
        uuids = {record["uuid"] for record in records if record["kind"] == "domain"}
        for place in [place for place in self.host.shares if place[0] in uuids]:
            del self.host.shares[place]
        for record in records:
            if record["kind"] == "net.netns" and record["name"].startswith("@") and self.host.segment_stays is not None:
                raise self.host.segment_stays
            if record["kind"] == "net.netns":
                self.host.network_gone(record["name"])
                self.host.segments.pop(record["name"].removeprefix("@"), None)
            elif record["kind"] == "net.directory":
                shutil.rmtree(record["path"])
            elif record["kind"] == "net.member":
                self.host.network_gone(record["zone"])


class Host:
    """What outlives a zoned.

    kill_at:  the number of the step at which the manager is killed; steps counts them.
    guests:   what runs in each domain, by its uuid; made by `make_guest` when the domain is unpaused.
    """

    def __init__(self, path: Path, monkeypatch: Any) -> None:
        self.path = path
        self.dead = False
        self.steps: list[str] = []
        self.kill_at = 0
        self.killed = threading.Event()
        self.did: list[str] = []
        self.networks: dict[str, FakeNetwork] = {}
        self.segments: dict[str, FakeSegment] = {}
        self.answering: set[int] = set()
        self.network_fails: Exception | None = None
        self.segment_fails: Exception | None = None
        self.engine_fails: Exception | None = None
        self.engine_deaths = 0  # how many engines die before they serve
        self.limit_fails: Exception | None = None
        self.captures: list[FakeCapture] = []
        self.teardown_fails: Exception | None = None
        self.segment_stays: Exception | None = None
        self.scratch_fails: Exception | None = None
        self.format_fails: Exception | None = None
        self.loops: list[FakeLoop] = []
        self.backed: dict[str, str] = {}
        self.shares: dict[tuple[str, int], Path] = {}
        self.followed: set[tuple[str, int]] = set()
        self.connect_fails: Exception | None = None
        self.connects = True
        self.guests: dict[str, Guest] = {}
        self.make_guest: Callable[[], Guest] = Guest
        self.has_agents = True
        self.build_gate: threading.Event | None = None
        self.building = threading.Semaphore(0)
        self.boot_id = "11111111-0000-0000-0000-000000000000"
        self.clock: Any = None
        self.xen = SharedXen(self)
        self.xenstored = FakeXenstored(path)
        self.stores: list[XenStore] = []
        self.manager: Manager | None = None
        self._blobs()
        self._patch(monkeypatch)

    # -- the parts that are simulated ----------------------------------------------------------------------------------

    def _blobs(self) -> None:
        for data in (kernel_elf(), b"070701" * 1001, b"rootfs"):
            digest = Digest.of(data)
            blob = self.path / "store" / "blobs" / "sha256" / digest.hex
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(data)

    def _patch(self, monkeypatch: Any) -> None:
        host = self
        monkeypatch.setattr(vbd, "device_number", lambda device: (7, 7))
        monkeypatch.setattr(sources, "SYS_BLOCK", self.path / "none")
        monkeypatch.setattr(Domain, "wait_vif", lambda domain, timeout_s=30.0: f"vif{domain.domid}.0")
        unpause, request_stop = domains.Domain.unpause, domains.Domain.request_stop
        record, close, commit = ledgers.Ledger.record, ledgers.Ledger.close, databases.Database._commit
        create, checked = ledgers.LedgerDir.create, databases.Database._checked
        build = Edge.build

        def kept_by_the_kernel(database: databases.Database) -> sqlite3.Connection:
            """Who is killed loses nothing of it; a machine that is busy takes seconds to have it all on its disk."""
            connection = checked(database)
            connection.execute("PRAGMA synchronous = OFF")
            return connection

        def fake_unpause(domain: Domain) -> None:
            host.step("unpause")
            guest = host.guests[domain.uuid] = host.make_guest()
            guest.host, guest.domid, guest.uuid = host, domain.domid, domain.uuid
            unpause(domain)
            guest.started()

        def fake_request_stop(domain: Domain, signal: int, timeout_s: float) -> None:
            request_stop(domain, signal, timeout_s)
            host.guests[domain.uuid].asked_to_stop(signal)

        def fake_build(edge: Edge, *arguments: Any) -> Domain:
            host.building.release()
            if host.build_gate is not None:
                host.build_gate.wait(120)
            return build(edge, *arguments)

        def stepped(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **keywords: Any) -> Any:
                detail = arguments[1] if name == "record" else ""
                host.step(f"{name} {detail}")
                result = work(*arguments, **keywords)
                host.step(f"{name} {detail} done")
                return result

            return wrapper

        look = Deaths._look

        def fake_look(deaths: Deaths) -> None:
            with contextlib.suppress(Killed):
                look(deaths)

        monkeypatch.setattr(Deaths, "_look", fake_look)
        monkeypatch.setattr(Domain, "unpause", fake_unpause)
        monkeypatch.setattr(Domain, "request_stop", fake_request_stop)
        monkeypatch.setattr(Edge, "build", fake_build)
        monkeypatch.setattr(ledgers.Ledger, "record", stepped("record", record))
        monkeypatch.setattr(ledgers.Ledger, "close", stepped("close", close))
        monkeypatch.setattr(ledgers.LedgerDir, "create", stepped("create", create))
        monkeypatch.setattr(databases.Database, "_commit", stepped("commit", commit))
        monkeypatch.setattr(databases.Database, "_checked", kept_by_the_kernel)

    def alive(self) -> None:
        if self.dead:
            raise Killed

    def step(self, name: str) -> None:
        """One of the steps between which a process can die."""
        self.alive()
        self.steps.append(name)
        if len(self.steps) == self.kill_at:
            self.dead = True
            self.killed.set()
            raise Killed

    def network_gone(self, name: str) -> None:
        """A network, with its engine and what that has."""
        if (network := self.networks.pop(name, None)) is not None:
            network.close()

    async def _open_link(self, domain: Domain, made: Callable[[Any], None]) -> Any:
        if not self.has_agents:
            return None
        link = FakeLink(self.guests[domain.uuid], self)
        made(link)
        link.frame(">", b"hello")
        return link

    # -- managers ------------------------------------------------------------------------------------------------------

    async def start(self, **settings: Any) -> Manager:
        """A zoned comes."""
        await self.make(**settings).start()
        assert self.manager is not None
        return self.manager

    def make(self, **settings: Any) -> Manager:
        """The manager of a zoned that comes, which is yet to be started."""
        store = XenStore(self.xenstored.path, timeout_s=60)
        self.stores.append(store)
        edge = HostEdge(Hypervisor(self.xen), store, stores=(self.path / "store",), open_link=self._open_link)
        edge.private = (self.path / "run", self.path / "state")
        edge.host = self
        edge.make_network = lambda name, addresses, mtu, record, **options: FakeNetwork(self, name, record, **options)
        edge.make_segment = lambda name, addresses, mtu, record, **options: FakeSegment(self, name, addresses, record)
        made = Settings(self.path / "run", self.path / "state", version="1", **settings)
        self.manager = Manager(made, edge, clock=self.clock, this_boot=self.boot_id)
        return self.manager

    async def kill(self) -> None:
        """The zoned that runs is killed, and all it holds is gone as the kernel would see to it."""
        assert self.manager is not None
        self.dead = True
        here = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not here]  # whoever waits for it is cut off as well
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self.manager, "core"):
            self._release(self.manager.core)
        self.dead, self.manager, self.kill_at = False, None, 0
        self.killed.clear()

    async def kill_in_the_midst(self, number: int, work: Coroutine[Any, Any, object]) -> str:
        """Kill zoned at the step of that number of some work, or at its end; where that was."""
        self.kill_at = len(self.steps) + number
        task = asyncio.create_task(work)
        killed = asyncio.create_task(asyncio.to_thread(self.killed.wait, 120))
        await asyncio.wait([task, killed], return_when=asyncio.FIRST_COMPLETED)
        self.killed.set()
        where = f"killed at {self.steps[-1]}"
        await self.kill()
        with contextlib.suppress(Killed, asyncio.CancelledError, Exception):
            await task
        return where

    def _release(self, core: Any) -> None:
        """What the kernel does with what a dead process held."""
        core.workers.shutdown()
        core.builders.shutdown()
        with contextlib.suppress(BaseException):
            core.database._thread.submit(core.database._connection.close).result(120)
        core.database._thread.shutdown()
        if core.deaths is not None:
            core.deaths.close()
        for zone in core.zones.values():
            zone.held.release()
            if zone.run is not None and zone.run.domain is not None:
                zone.run.domain.let_go()
        for channel in list(self.xen.channels):
            channel.close()
        self.xen.open_maps.clear()
        self.loops.clear()
        self.followed.clear()
        self.stores.pop().close()

    async def stop(self, *, end_zones: bool = False) -> None:
        """The zoned that runs ends in order."""
        assert self.manager is not None
        await self.manager.close(end_zones=end_zones)
        self.manager = None
        if not end_zones:
            self.loops.clear()  # its descriptors end with the process, and back ends are not simulated
        self.stores.pop().close()

    def close(self) -> None:
        for store in self.stores:
            store.close()
        self.xenstored.close()

    # -- what tests ask ------------------------------------------------------------------------------------------------

    def request(self, name: str = "web", **keywords: Any) -> BootRequest:
        """A zone of this host's blobs."""
        memory_mib = keywords.pop("memory_mib", MEMORY_MIB)
        process = keywords.pop("process", Process(("/serve",), (), stop_timeout_s=5))
        resources = Resources(memory_mib, keywords.pop("memory_max_mib", memory_mib), 1, keywords.pop("vcpus_max", 1))
        kernel, initrd, rootfs = kernel_elf(), b"070701" * 1001, b"rootfs"
        bundle = Bundle(
            name=name,
            kernel=_blob(kernel),
            kernel_release="6.1",
            initrd=(_blob(initrd),),
            modules=(),
            rootfs=_blob(rootfs),
            process=process,
            resources=resources,
            ports=keywords.pop("bundle_ports", ()),
            network=keywords.pop("bundle_network", Network()),
            scratch_mib=keywords.pop("scratch_mib", 0),
            volumes=keywords.pop("volumes", ()),
            filesystems=keywords.pop("filesystems", ()),
            confinement=keywords.pop("confinement", None),
        )
        return BootRequest(bundle, **keywords)

    def guest(self, name: str = "web") -> Guest:
        assert self.manager is not None
        zone = next(zone for zone in self.manager.core.zones.values() if zone.name == name)
        assert zone.run is not None
        return self.guests[zone.run.uuid]

    def guest_ended(self, uuid: str) -> bool:
        return self.guests[uuid].ended

    def reboot(self) -> None:
        """The machine starts anew: of Xen, xenstore and /run nothing is left."""
        self.boot_id = "22222222" + self.boot_id[8:]
        self.xen.__init__(self)  # type: ignore[misc]
        for path in self.xenstored.below("/local/domain"):
            if path.split("/")[3:4] not in ([], ["0"]):
                self.xenstored.nodes.pop(path, None)
        for ledger in (self.path / "run" / "ledger").glob("*"):
            ledger.unlink()
        for name in list(self.networks):
            self.network_gone(name)
        self.segments.clear()
        self.guests.clear()

    def foreign_domain(self) -> int:
        """A domain of another toolstack."""
        with XenStore(self.xenstored.path, timeout_s=60):
            return Hypervisor(self.xen).create_domain("99999999-0000-0000-0000-000000000000", max_vcpus=1)

    def leftovers(self) -> list[str]:
        """What is there although no zone is: of Xen, xenstore, networks, ledgers."""
        left = [f"domain {domid}" for domid in self.xen.domains if domid]
        left += [f"channel {channel.port}" for channel in self.xen.channels]
        left += [path for path in self.xenstored.below("/local/domain") if path.split("/")[3:4] not in ([], ["0"])]
        left += [f"network {name}" for name in [*self.networks, *(f"@{name}" for name in self.segments)]]
        left += [f"loop {loop.device}" for loop in self.loops]
        left += [f"share {number} of {uuid}" for uuid, number in self.shares]
        ledgers = [path for kind in ("ledger", "networks") for path in (self.path / "run" / kind).glob("*")]
        return left + [f"ledger {path.name}" for path in ledgers]

    def scratch_of(self) -> set[str]:
        """Ids of the zones whose scratch disks are there."""
        return {path.name for path in (self.path / "state" / "scratch").glob("*")}


def _blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


def run(work: Awaitable[Any], timeout_s: float = 240.0) -> Any:
    """A coroutine to its end."""

    async def bounded() -> Any:
        async with asyncio.timeout(timeout_s):
            return await work

    return asyncio.run(bounded())
