"""Zones that wait to be started, are refused before anything is built, or are called off."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support.daemonworld import Host, run
from support.fakeguest import silent_guest

from runtime.host.daemon.database import Database
from runtime.host.daemon.errors import (
    BootCancelled,
    NotEnough,
)
from runtime.host.daemon.model import State
from runtime.host.daemon.signals import until


def test_twenty_zones_wait_their_turn_and_all_run(host: Host) -> None:
    async def work() -> None:
        host.build_gate = threading.Event()
        manager = await host.start()
        boots = [asyncio.create_task(manager.boot(host.request(f"z{n}"))) for n in range(20)]
        for _ in range(2):
            await asyncio.to_thread(host.building.acquire, True, 20)
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
        await asyncio.to_thread(host.building.acquire, True, 20)
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
            await asyncio.to_thread(host.building.acquire, True, 20)
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


@pytest.mark.parametrize("forget", [True, False], ids=["cancelled", "stopped"])
def test_boot_that_is_called_off_while_it_builds_leaves_nothing(host: Host, forget: bool) -> None:
    async def work() -> None:
        host.build_gate = threading.Event()
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(host.request()))
        await asyncio.to_thread(host.building.acquire, True, 20)
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
        await asyncio.to_thread(host.building.acquire, True, 20)
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
            assert gate.wait(20)
            commit(database, statements)

        monkeypatch.setattr(Database, "_commit", slow)
        boot = asyncio.create_task(manager.boot(host.request()))
        assert await asyncio.to_thread(begun.wait, 20)
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


@pytest.mark.parametrize("at", ["building", "running"])
def test_loop_that_ends_while_a_zone_boots_ends_the_zone_and_itself(host: Host, at: str) -> None:
    """asyncio.run cancels the life of the zone together with whoever boots it, so that nobody tells how it went on."""

    async def work() -> None:
        host.build_gate = threading.Event()
        host.make_guest = silent_guest
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(host.request(until_ready=True)))
        await asyncio.to_thread(host.building.acquire, True, 20)
        host.build_gate.set()
        if at == "running":
            (zone,) = manager.core.zones.values()
            await until(zone.changes, lambda: zone.run is not None and zone.run.up, manager.core.clock)
        assert not boot.done()

    ended = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    ended.start()
    ended.join(30)
    assert not ended.is_alive(), "asyncio.run waits for ever"
    assert host.manager is not None and host.manager.core.zones == {}
    assert host.leftovers() == []
    asyncio.run(host.kill())
