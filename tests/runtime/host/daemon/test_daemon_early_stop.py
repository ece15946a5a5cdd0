"""A stop that comes before a zone's workload: over at once, by request, and not by force at the end of a timeout."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from support.daemonworld import Host, Killed, run
from support.fakeguest import Guest
from support.gates import held

from pipeline.bundle.model import Process
from runtime.host.daemon import bringup
from runtime.host.daemon.errors import BootCancelled
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import BootRequest, RestartPolicy, State, ZoneInfo
from runtime.host.daemon.signals import until

REFUSED = "failed cancelled it was stopped before its workload started"


class SlowGuest(Guest):
    """Its init is at a phase, and gets no further by itself."""

    def __init__(self, phase: str = "") -> None:
        super().__init__()
        self.silent, self.stops_when_asked, self.phase = True, False, phase
        self.asked: list[int] = []

    def started(self) -> None:
        if self.phase:
            self.report(phase=self.phase)

    def asked_to_stop(self, signal: int) -> None:
        self.asked.append(signal)


def patient(host: Host, **keywords: object) -> BootRequest:
    """A zone that may take longer to stop than any test."""
    process = Process(("/serve",), (), stop_timeout_s=600)
    return host.request(process=process, restart=RestartPolicy("always"), **keywords)


def check_called_off(host: Host, zone: ZoneInfo) -> None:
    assert zone.state is State.EXITED and zone.exit is not None and zone.restarts == 0
    assert (zone.exit.reason, zone.exit.signal, zone.exit.code) == ("cancelled", 0, 125)
    assert host.leftovers() == []


@pytest.mark.parametrize("agents", [True, False], ids=["channel", "no channel"])
@pytest.mark.parametrize("phase", ["", "init", "modules", "root"])
def test_zone_whose_init_is_not_done_is_over_at_once(host: Host, phase: str, agents: bool) -> None:
    async def work() -> None:
        host.make_guest, host.has_agents = lambda: SlowGuest(phase), agents
        manager = await host.start()
        await manager.boot(patient(host))
        check_called_off(host, await manager.stop("web"))
        (guest,) = host.guests.values()
        assert guest.asked == [15]  # type: ignore[attr-defined]
        await host.stop()

    run(work())


def test_zoned_that_ends_as_a_run_begins_leaves_nothing_of_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        begun, goes_on = held(monkeypatch, bringup, "begin")
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(host.request(network="back")))
        await asyncio.to_thread(begun.wait, 120)
        (zone,) = manager.core.zones.values()
        end = asyncio.create_task(host.stop())
        while zone.task is None or not zone.task.cancelling():
            await asyncio.sleep(0)
        goes_on.set()
        await end
        await asyncio.wait([boot])
        assert boot.exception() is not None and host.leftovers() == []
        manager = await host.start()
        assert [(found.name, found.state.live) for found in manager.list_zones()] == [("web", False)]
        await host.stop()

    run(work())


def test_stop_right_after_a_restart_ends_the_new_run(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        host.make_guest = SlowGuest
        await manager.restart("web")
        check_called_off(host, await manager.stop("web", 600))
        host.make_guest = Guest
        await manager.restart("web")
        assert (await manager.wait("web", "ready", 120)).state is State.READY
        await host.stop(end_zones=True)

    run(work())


def test_stop_while_a_restart_builds_calls_it_off(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await asyncio.to_thread(host.building.acquire, True, 120)
        host.build_gate = threading.Event()
        restart = asyncio.create_task(manager.restart("web"))
        await asyncio.to_thread(host.building.acquire, True, 120)
        stop = asyncio.create_task(manager.stop("web"))
        await asyncio.sleep(0)
        host.build_gate.set()
        with pytest.raises(BootCancelled):
            await restart
        check_called_off(host, await stop)
        assert len(host.guests) == 1, "the second run began"
        await host.stop()

    run(work())


def test_boot_that_waits_for_the_workload_is_told_that_it_was_called_off(host: Host) -> None:
    async def work() -> None:
        host.make_guest = SlowGuest
        manager = await host.start()
        boot = asyncio.create_task(manager.boot(patient(host, until_ready=True)))
        await until_up(manager)
        check_called_off(host, await manager.stop("web"))
        with pytest.raises(BootCancelled, match="stopped before its workload started"):
            await boot
        await host.stop()

    run(work())


def test_exit_of_a_workload_that_had_ended_stands_though_its_domain_is_ended_by_force(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        guest.report(phase="exited", exit="code 3")  # and its domain is still to power off
        guest.note("exit", container="main", code=3)
        (zone,) = manager.core.zones.values()
        while zone.run is not None and zone.run.told is None:
            await asyncio.sleep(0)
        assert (await manager.stop("web", 0.0)).exit.text == "exit code 3"  # type: ignore[union-attr]
        await host.stop()

    run(work())


def test_second_stop_changes_nothing(host: Host) -> None:
    async def work() -> None:
        host.make_guest = SlowGuest
        manager = await host.start()
        await manager.boot(patient(host))
        for zone in await asyncio.gather(manager.stop("web"), manager.stop("web", 300)):
            check_called_off(host, zone)
        check_called_off(host, await manager.stop("web"))
        await host.stop()

    run(work())


@pytest.mark.parametrize("phase", ["root", "network"])
def test_zone_that_may_have_seen_the_stop_too_late_is_waited_for(host: Host, phase: str) -> None:
    """Its init goes on between the request and zoned's look; what it does about the request is its own to say."""

    class QuickGuest(SlowGuest):
        def asked_to_stop(self, signal: int) -> None:
            super().asked_to_stop(signal)
            self.report(phase="network")

    async def work() -> None:
        host.make_guest = lambda: QuickGuest(phase)
        manager = await host.start()
        await manager.boot(patient(host))
        (zone,) = manager.core.zones.values()
        guest = host.guest()
        stop = asyncio.create_task(manager.stop("web"))
        await until(zone.changes, lambda: zone.run is None or zone.run.phase == "network", manager.core.clock)
        await asyncio.sleep(0.05)
        assert not stop.done() and not guest.ended
        guest.exit(REFUSED)
        check_called_off(host, await stop)
        await host.stop()

    run(work())


# -- with a zoned that is killed meanwhile -----------------------------------------------------------------------------


async def until_up(manager: Manager) -> None:
    while not manager.core.zones:
        await asyncio.sleep(0.002)
    (zone,) = manager.core.zones.values()
    await until(zone.changes, lambda: zone.run is not None and zone.run.up, manager.core.clock)


async def boot_and_stop(host: Host, gate: threading.Event, *, building: bool) -> None:
    """The stop comes while the domain is built, or before its init has done anything."""
    manager = await host.start()
    boot = asyncio.create_task(manager.boot(patient(host)))
    if building:
        while not host.building.acquire(blocking=False):
            await asyncio.sleep(0.002)
    else:
        gate.set()
        await boot
    stop = asyncio.create_task(manager.stop("web"))
    await asyncio.sleep(0)
    gate.set()
    await stop
    await asyncio.gather(boot, return_exceptions=True)


async def killed_at(host: Host, number: int, *, building: bool) -> bool:
    """False where it ends before that step."""
    gate = host.build_gate = threading.Event()
    host.make_guest, host.kill_at = SlowGuest, number
    work = asyncio.create_task(boot_and_stop(host, gate, building=building))
    while not work.done() and not host.killed.is_set():
        await asyncio.sleep(0.002)
    gate.set()
    if not host.killed.is_set():
        await work
        host.kill_at = 0
        await host.stop()
        return False
    step = host.steps[-1]
    await host.kill()
    with contextlib.suppress(Killed, asyncio.CancelledError, Exception):
        await work
    manager = await host.start()
    for zone in list(manager.core.zones.values()):
        if not zone.wanted:
            ended = await manager.wait(zone.id, "exited", 120)
            where = f"killed at step {number} ({step}): {ended.state}, {ended.exit}, {host.leftovers()}"
            assert ended.exit is not None and ended.exit.reason == "cancelled", where
            assert ended.state is State.EXITED and host.leftovers() == [], where
    await host.stop(end_zones=True)
    return True


@pytest.mark.parametrize("building", [True, False], ids=["building", "booting"])
def test_wish_to_stop_outlives_a_zoned_that_is_killed_at_any_step(
    building: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, went_on = 0, True
    while went_on:
        number += 1
        with monkeypatch.context() as patches:
            host = Host(tmp_path_factory.mktemp("host"), patches)
            try:
                went_on = run(killed_at(host, number, building=building))
            finally:
                host.close()
    assert number > 20
