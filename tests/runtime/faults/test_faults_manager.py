"""Every hypercall, xenstore request, ledger record, write of the database and change of a network that zoned itself
makes fails once, from a boot to the zone's end, and while the next zoned takes a running zone over.

zoned's own code on a simulated host; the zone has a scratch disk and a directory of the host's, and grows. A zone that
failed to boot, or has ended, leaves nothing that the next zoned does not find and end; one that runs, runs on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from support import faults
from support.daemonworld import Host, Killed, run
from support.doorfaults import FaultyDoor, Points, faulty_edges, os_failure
from support.hostnetworks import FakeNetwork

from pipeline.bundle.model import Volume
from runtime.errors import RuntimeFault
from runtime.host.daemon import life, shares
from runtime.host.daemon.database import Database
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import BootRequest, State, Update, ZoneInfo
from runtime.host.ledger import Ledger

SAMPLE = 16
STOP_S = 0.3
LONGEST_S = 60.0


class World:
    """A simulated host whose zoned passes points from `armed` on."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.points = host, Points()
        record, commit, do = Ledger.record, Database._commit, FakeNetwork._do

        def recorded(ledger: Ledger, kind: str, **fields: Any) -> None:
            self.points(f"ledger {kind}", os_failure)
            record(ledger, kind, **fields)

        def committed(database: Database, statements: Any) -> None:
            self.points("database", lambda name: sqlite3.OperationalError(f"injected at {name}"))
            commit(database, statements)

        def done(network: FakeNetwork, what: str) -> None:
            self.points(f"network {what.split()[0]}", os_failure)
            do(network, what)

        monkeypatch.setattr(Ledger, "record", recorded)
        monkeypatch.setattr(Database, "_commit", committed)
        monkeypatch.setattr(FakeNetwork, "_do", done)
        monkeypatch.setattr(life, "FORCE_AFTER_S", STOP_S)
        monkeypatch.setattr(shares, "CONNECT_S", STOP_S)

    def make(self) -> Manager:
        """A zoned whose door can be made to fail."""
        manager = self.host.make()
        hypervisor: Any = manager._edge.hypervisor
        self._door = hypervisor._door = FaultyDoor(hypervisor.door, Points())
        return manager

    @contextlib.contextmanager
    def armed(self, at: str) -> Iterator[Points]:
        """Points count, and one fails."""
        points = Points(at)
        with faulty_edges(points):
            self.points = self._door.points = points
            try:
                yield points
            finally:
                self.points = self._door.points = Points()

    def request(self) -> BootRequest:
        directory = self.host.path / "shared"
        directory.mkdir(exist_ok=True)
        volumes = (Volume("/data", "directory", str(directory)),)
        return self.host.request(
            memory_mib=96, memory_max_mib=128, vcpus_max=2, scratch_mib=16, volumes=volumes, filesystems=("9p", "ext4"),
            until_ready=True,
        )  # fmt: skip


async def refused(work: Awaitable[Any]) -> bool:
    """Was it refused, in a sentence? What is neither done nor refused is a defect."""
    try:
        await work
    except (RuntimeFault, OSError):
        return True
    return False


async def boot_to_end(world: World, at: str) -> Points:
    """A zone boots, grows, is stopped and removed; then the next zoned comes."""
    host, manager = world.host, world.make()
    await manager.start()
    with world.armed(at) as points:
        if not await refused(manager.boot(world.request())):
            await refused(manager.update("web", Update(memory_mib=128, vcpus=2)))
            await refused(manager.stop("web", STOP_S))
        assert not any(zone.state.live for zone in manager.list_zones()), f"it goes on, after {at}"
    await host.stop()
    manager = await host.start()
    assert not any(zone.state.live for zone in manager.list_zones()), at
    assert host.leftovers() == [], at
    for zone in manager.list_zones():
        await manager.remove(zone.id)
    await manager.boot(world.request())
    await host.stop(end_zones=True)
    assert host.leftovers() == [], at
    return points


async def adoption(world: World, at: str) -> Points:
    """A zone runs, its zoned is killed; another one, or where that cannot start the one after it, has it as it was."""
    host = world.host
    manager = await host.start()
    before = await manager.boot(world.request())
    await host.kill()
    manager = world.make()
    with world.armed(at) as points:
        if await refused(manager.start()):
            await host.kill()
            manager = await host.start()
        after = await until_taken_over(manager)
    assert (after.id, after.domid, after.domain_uuid, after.restarts) == (
        before.id, before.domid, before.domain_uuid, 0,
    ), at  # fmt: skip
    assert not host.guest_ended(before.domain_uuid), at
    await manager.stop("web", STOP_S)
    await host.stop()
    manager = await host.start()
    assert host.leftovers() == [], at
    await host.stop()
    return points


async def until_taken_over(manager: Manager) -> ZoneInfo:
    while True:
        (zone,) = manager.list_zones()
        assert zone.state in (State.RUNNING, State.READY), f"{zone.state}, {zone.exit}"
        if zone.agent:
            return zone
        await asyncio.sleep(0.01)


# Edges there are at least: one that is no longer passed is one that nothing looks at any more.
BOOT_TO_END = {
    *("door buffer", "door bind_event_channel", "door map_foreign", "door map_grant_table", "evtchn notify"),
    *("hypercall domctl createdomain", "hypercall domctl destroydomain", "hypercall domctl getdomaininfo"),
    *("hypercall domctl max_mem", "hypercall domctl max_vcpus", "hypercall domctl set_address_size"),
    *("hypercall domctl setvcpucontext", "hypercall domctl unpausedomain", "hypercall evtchn alloc_unbound"),
    *("hypercall mmuext pin L4", "hypercall populate_physmap", "hypercall set_memory_map"),
    *("hypercall sysctl getdomaininfolist", "hypercall sysctl physinfo"),
    *("xenstore directory", "xenstore introduce", "xenstore mkdir", "xenstore read", "xenstore rm"),
    *("xenstore set_perms", "xenstore transaction_end", "xenstore transaction_start", "xenstore unwatch"),
    *("xenstore watch", "xenstore write", "database", "network network", "network attached", "network serves"),
    *("ledger zone", "ledger device", "ledger file", "ledger loop", "ledger net.netns", "ledger domain"),
    *("ledger xenstore", "ledger console", "ledger channel", "ledger started", "ledger exit"),
}
ADOPTION = {
    *("door buffer", "door bind_event_channel", "door map_foreign", "evtchn notify", "database", "network network"),
    *("hypercall sysctl getdomaininfolist", "xenstore read", "xenstore watch"),
}
PHASES: dict[Callable[[World, str], Awaitable[Points]], set[str]] = {boot_to_end: BOOT_TO_END, adoption: ADOPTION}


def kind_of(point: str) -> str:
    return point.split("#")[0]


@pytest.mark.parametrize("phase", PHASES)
def test_zoned_that_fails_once_at_any_edge_leaves_nothing_and_ends_nothing(
    phase: Callable[[World, str], Awaitable[Points]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def once(at: str = "") -> Points:
        with monkeypatch.context() as patches:
            host = Host(tmp_path_factory.mktemp("host"), patches)
            try:
                points: Points = run(phase(World(host, patches), at), LONGEST_S)
                return points
            finally:
                host.close()

    passed = once().seen
    chosen = faults.spread(passed, SAMPLE)
    missed, wrong = [], []
    for at in chosen:
        try:
            missed += [] if once(at).fired else [at]
        except (Exception, Killed) as problem:
            wrong.append(f"{at}: {problem!r}")
    assert wrong == []
    kinds = Counter(map(kind_of, passed))
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    faults.say(f"{phase.__name__}: {len(chosen)} of {len(passed)} points ({counted}); not reached: {missed or 'none'}")
    assert kinds.keys() >= PHASES[phase]
