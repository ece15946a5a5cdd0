"""Zones that wait to be started, are refused before anything is built, or are called off."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import Any

import pytest
from support.daemonworld import Host, run
from support.fakeguest import silent_guest

from runtime.host.daemon.database import Database
from runtime.host.daemon.errors import (
    BootCancelled,
    NameTaken,
    NotEnough,
    StateDamaged,
    UnknownZone,
)
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import State, ZoneInfo
from runtime.host.daemon.signals import until


def test_twenty_zones_wait_their_turn_and_all_run(host: Host) -> None:
    async def work() -> None:
        host.build_gate = threading.Event()
        manager = await host.start()
        boots = [asyncio.create_task(manager.boot(host.request(f"z{n}"))) for n in range(20)]
        for _ in range(2):
            await asyncio.to_thread(host.building.acquire, True, 120)
        assert not host.building.acquire(blocking=False), "a third domain was being built"
        states = [zone.state for zone in manager.list_zones()]
        assert len(states) == 20 and states.count(State.QUEUED) == 16
        host.build_gate.set()
        zones = await asyncio.gather(*boots)
        assert len({zone.domid for zone in zones}) == 20
        assert len({zone.addresses for zone in zones}) == 20
        await asyncio.gather(*(manager.stop(zone.id) for zone in zones))
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_queue_is_bounded(host: Host) -> None:
    async def work() -> None:
        host.build_gate = threading.Event()
        manager = await host.start(queue=3)
        boots = [asyncio.create_task(manager.boot(host.request(f"z{n}"))) for n in range(3)]
        await asyncio.to_thread(host.building.acquire, True, 120)
        with pytest.raises(NotEnough, match="3 zones at most to wait"):
            await manager.boot(host.request("one-more"))
        host.build_gate.set()
        await asyncio.gather(*boots)
        await host.stop(end_zones=True)

    run(work())


def test_memory_is_promised_before_anything_is_built(host: Host) -> None:
    async def work() -> None:
        host.build_gate = threading.Event()
        host.xen.free = host.xen.total = 130 << 8  # two zones of 48 MiB, not three
        manager = await host.start()
        boots = [asyncio.create_task(manager.boot(host.request(f"z{n}"))) for n in range(2)]
        for _ in range(2):
            await asyncio.to_thread(host.building.acquire, True, 120)
        before = list(host.steps)
        with pytest.raises(NotEnough, match="50 MiB of free memory in Xen, got 130 MiB, 100 MiB of them promised"):
            await manager.boot(host.request("third"))
        assert host.steps == before and len(manager.list_zones()) == 2
        host.build_gate.set()
        await asyncio.gather(*boots)
        await manager.stop("z0")
        await manager.boot(host.request("third"))
        await host.stop(end_zones=True)

    run(work())


async def ended_one(host: Host, manager: Manager) -> ZoneInfo:
    """A zone that has ended, with a log and a scratch disk."""
    await manager.boot(host.request(until_ready=True, scratch_mib=16))
    host.guest().write(b"what it said\n")
    return await manager.stop("web")


async def is_whole(host: Host, manager: Manager, zone: ZoneInfo) -> bool:
    """Is it listed, with its log and its scratch disk?"""
    said = b"".join([entry.data async for entry in manager.logs(zone.id)])
    listed = [(each.id, each.state) for each in manager.list_zones()]
    return listed == [(zone.id, State.EXITED)] and said == b"what it said\n" and zone.id in host.scratch_of()


def test_boot_that_wants_a_fresh_name_is_refused_one_that_has_ended(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        old = await ended_one(host, manager)
        with pytest.raises(NameTaken, match=r"got one that has ended, exited \(zone rm web forgets it with its logs"):
            await manager.boot(host.request(fresh=True))
        assert await is_whole(host, manager, old)
        await manager.remove("web")
        await manager.boot(host.request(fresh=True, until_ready=True))
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zone_stays_as_it_is_where_the_one_in_its_place_cannot_be_written(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        old = await ended_one(host, manager)
        commit = Database._commit

        def full(database: Database, statements: Any) -> None:
            if any("INSERT INTO zones" in sql for sql, _ in statements):
                raise sqlite3.OperationalError("database or disk is full")
            commit(database, statements)

        with monkeypatch.context() as patched:
            patched.setattr(Database, "_commit", full)
            with pytest.raises(StateDamaged, match="disk is full"):
                await manager.boot(host.request())
        assert await is_whole(host, manager, old)
        await host.kill()
        manager = await host.start()
        assert await is_whole(host, manager, old)
        await host.stop()

    run(work())


@pytest.mark.parametrize("number", range(1, 8))
def test_zoned_that_dies_as_a_zone_takes_the_place_of_another_loses_neither(host: Host, number: int) -> None:
    async def work() -> None:
        manager = await host.start()
        old = await ended_one(host, manager)
        where = await host.kill_in_the_midst(number, manager.boot(host.request()))
        manager = await host.start()
        (zone,) = manager.list_zones()
        assert zone.name == "web", where
        if zone.id == old.id:
            assert await is_whole(host, manager, old), where
        else:
            assert old.id not in host.scratch_of(), where
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_boot_that_is_called_off_as_it_is_written_is_no_zone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await host.start()
        await ended_one(host, manager)
        commit, boot = Database._commit, asyncio.create_task(manager.boot(host.request()))

        def called_off(database: Database, statements: Any) -> None:
            if any("INSERT INTO zones" in sql for sql, _ in statements):
                manager.core.soon(boot.cancel)
            commit(database, statements)

        monkeypatch.setattr(Database, "_commit", called_off)
        with pytest.raises(asyncio.CancelledError):
            await boot
        while manager.list_zones() or await manager.core.database.read("SELECT name FROM zones"):
            await asyncio.sleep(0.001)
        await host.stop()
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("forget", [True, False], ids=["cancelled", "stopped"])
def test_boot_that_is_called_off_while_it_builds_leaves_nothing(host: Host, forget: bool) -> None:
    async def work() -> None:
        host.build_gate = threading.Event()
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(host.request()))
        await asyncio.to_thread(host.building.acquire, True, 120)
        if forget:
            boot.cancel()
        else:
            stop = asyncio.create_task(manager.stop("web"))
        await asyncio.sleep(0)
        host.build_gate.set()
        with pytest.raises(asyncio.CancelledError if forget else BootCancelled):
            await boot
        if not forget:
            assert (await stop).state is State.EXITED
        assert "unpause" not in host.steps
        assert host.leftovers() == []
        assert [zone.name for zone in manager.list_zones()] == ([] if forget else ["web"])
        await host.stop()

    run(work())


def test_boot_that_is_cancelled_twice_ends_its_zone_all_the_same(host: Host) -> None:
    """As by a client that goes: its stream is reset first, then its connection is lost."""

    async def work() -> None:
        host.build_gate = threading.Event()
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(host.request()))
        await asyncio.to_thread(host.building.acquire, True, 120)
        for _ in range(3):
            boot.cancel()
            await asyncio.sleep(0)
        host.build_gate.set()
        with pytest.raises(asyncio.CancelledError):
            await boot
        assert host.leftovers() == [] and manager.list_zones() == []
        await host.stop()

    run(work())


def test_boot_that_is_cancelled_while_its_zone_is_first_written_leaves_the_name_free(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        commit, begun, gate = Database._commit, threading.Event(), threading.Event()

        def slow(database: Database, statements: Any) -> None:
            begun.set()
            assert gate.wait(120)
            commit(database, statements)

        monkeypatch.setattr(Database, "_commit", slow)
        boot = asyncio.create_task(manager.boot(host.request()))
        assert await asyncio.to_thread(begun.wait, 120)
        boot.cancel()
        with pytest.raises(asyncio.CancelledError):
            await boot
        gate.set()
        assert manager.list_zones() == []
        zone = await manager.boot(host.request())
        events = [event async for event in manager.events(from_start=True, follow=False)]
        assert [event.kind for event in events][:3] == ["zone.queued", "zone.removed", "zone.queued"]
        assert events[0].zone_id == events[1].zone_id != events[2].zone_id == zone.id
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("fails", [False, True], ids=["written", "not written"])
def test_zone_that_is_being_replaced_is_not_started_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async def work() -> None:
        manager = await host.start()
        old = await manager.boot(host.request())
        await manager.stop("web")
        commit, begun, gate = Database._commit, threading.Event(), threading.Event()

        def slow(database: Database, statements: Any) -> None:
            first = not begun.is_set()
            begun.set()
            assert gate.wait(120)
            if first and fails:
                raise sqlite3.OperationalError("disk I/O error")
            commit(database, statements)

        monkeypatch.setattr(Database, "_commit", slow)
        boot = asyncio.create_task(manager.boot(host.request()))
        assert await asyncio.to_thread(begun.wait, 120)
        boot.cancel()
        with pytest.raises(asyncio.CancelledError):
            await boot
        again = asyncio.create_task(manager.restart("web"))
        await asyncio.sleep(0)
        gate.set()
        if fails:
            assert (await again).id == old.id
        else:
            with pytest.raises(UnknownZone, match="zone web: it has been removed"):
                await again
        assert [zone.id for zone in manager.list_zones()] == ([old.id] if fails else [])
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_restart_that_is_cancelled_while_it_is_written_goes_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request())
        await manager.stop("web")
        commit, begun, gate = Database._commit, threading.Event(), threading.Event()

        def slow(database: Database, statements: Any) -> None:
            begun.set()
            assert gate.wait(120)
            commit(database, statements)

        monkeypatch.setattr(Database, "_commit", slow)
        restart = asyncio.create_task(manager.restart("web"))
        assert await asyncio.to_thread(begun.wait, 120)
        restart.cancel()
        with pytest.raises(asyncio.CancelledError):
            await restart
        gate.set()
        assert (await manager.wait("web", "running")).state.up
        assert (await manager.stop("web")).state is State.EXITED
        events = [event.kind async for event in manager.events(from_start=True, follow=False)]
        assert events[events.index("zone.exited") + 1 :][:3] == ["zone.queued", "zone.creating", "zone.running"]
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_zone_that_two_start_at_once_is_started_once(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        zones = await asyncio.gather(*(manager.restart("web", unless_live=True) for _ in range(2)))
        assert {zone.state.live for zone in zones} == {True}
        uuid = (await manager.wait("web", "ready")).domain_uuid
        assert (await manager.restart("web", unless_live=True)).domain_uuid == uuid, "one that runs is fine"
        assert len(host.guests) == 2
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zone_that_is_to_be_started_while_it_is_being_stopped_ends_first(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest, (zone,) = host.guest(), manager.core.zones.values()
        guest.stops_when_asked = False
        stop = asyncio.create_task(manager.stop("web", 600))
        await until(zone.changes, lambda: zone.state is State.STOPPING, manager.core.clock)
        start = asyncio.create_task(manager.restart("web", unless_live=True))
        await asyncio.sleep(0)
        guest.exit("code 0")
        assert (await stop).state is State.EXITED
        assert (await start).state.up and len(host.guests) == 2
        await host.stop(end_zones=True)

    run(work())


def test_restart_begins_no_life_before_the_one_before_is_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        commit, begun, gate = Database._commit, threading.Event(), threading.Event()

        def slow(database: Database, statements: Any) -> None:
            if "zone.exited" in str(statements):
                begun.set()
                assert gate.wait(120)
            commit(database, statements)

        monkeypatch.setattr(Database, "_commit", slow)
        stop = asyncio.create_task(manager.stop("web"))
        assert await asyncio.to_thread(begun.wait, 120)
        assert not manager.list_zones()[0].state.live
        restart = asyncio.create_task(manager.restart("web"))
        for _ in range(50):  # time for all that does not need the database
            await asyncio.to_thread(int)
        assert not restart.done()
        gate.set()
        assert (await restart).state.up
        await stop
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("at", ["building", "running"])
def test_loop_that_ends_while_a_zone_boots_ends_the_zone_and_itself(host: Host, at: str) -> None:
    """asyncio.run cancels the life of the zone together with whoever boots it, so that nobody tells how it went on."""

    async def work() -> None:
        host.build_gate = threading.Event()
        host.make_guest = silent_guest
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(host.request(until_ready=True)))
        await asyncio.to_thread(host.building.acquire, True, 120)
        host.build_gate.set()
        if at == "running":
            (zone,) = manager.core.zones.values()
            await until(zone.changes, lambda: zone.run is not None and zone.run.up, manager.core.clock)
        assert not boot.done()

    ended = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    ended.start()
    ended.join(120)
    assert not ended.is_alive(), "asyncio.run waits for ever"
    assert host.manager is not None and host.manager.core.zones == {}
    assert host.leftovers() == []
    asyncio.run(host.kill())
