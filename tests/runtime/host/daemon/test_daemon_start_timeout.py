"""Guests that never come to run their workload are ended in the time they were given."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.fakeguest import Guest, silent_guest

from runtime.host.daemon.errors import (
    BadRequest,
    ZoneFailed,
)
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import RestartPolicy, State, ZoneInfo


async def hanging(host: Host, **fields: Any) -> tuple[Manager, FakeClock, asyncio.Task[ZoneInfo]]:
    """A boot whose guest never says a word, up to where its domain runs."""
    host.clock, host.make_guest = FakeClock(), silent_guest
    manager = await host.start()
    boot = asyncio.create_task(manager.boot(host.request(**fields)))
    while not host.guests:
        await asyncio.sleep(0)
    (zone,) = manager.core.zones.values()
    while zone.run is None or not zone.run.up or not host.clock.waited_for(300):
        await asyncio.sleep(0)
    with open(zone.run.console, "ab") as console:
        console.write(b"[    0.1] waiting for a disk\n")
    return manager, host.clock, boot


def test_guest_that_never_says_hello_is_ended_in_time(host: Host) -> None:
    async def work() -> None:
        manager, clock, boot = await hanging(host, until_ready=True, start_timeout_s=300)
        clock.pass_time(299)
        await asyncio.sleep(0.02)
        assert not boot.done() and host.leftovers()
        clock.pass_time(2)
        with pytest.raises(ZoneFailed, match="its workload did not start within 300 s") as caught:
            await boot
        assert "waiting for a disk" in caught.value.hint, "its last console lines say why"
        zone = await manager.get("web")
        assert (zone.state, zone.exit and zone.exit.reason) == (State.FAILED, "timeout")
        assert zone.console_tail == ("[    0.1] waiting for a disk",)
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_hanging_guest_that_nobody_waits_for_is_ended_and_comes_again_as_its_policy_says(host: Host) -> None:
    async def work() -> None:
        manager, clock, boot = await hanging(host, restart=RestartPolicy("on-failure", 1), start_timeout_s=300)
        await boot
        (zone,) = manager.core.zones.values()
        host.make_guest = Guest
        clock.pass_time(301)
        while zone.state is not State.RESTARTING or not clock.waited_for(0.1):
            await asyncio.sleep(0)
        clock.pass_time(1)
        assert (await manager.wait("web", "ready")).restarts == 1
        clock.pass_time(1000)
        await asyncio.sleep(0.02)
        assert zone.state is State.READY, "one that has started has no deadline any more"
        await host.stop(end_zones=True)

    run(work())


def test_adopted_guest_that_hangs_has_what_is_left_of_its_time(host: Host) -> None:
    async def work() -> None:
        manager, clock, boot = await hanging(host, start_timeout_s=300)
        await boot
        clock.pass_time(200)
        await host.kill()
        manager = await host.start()
        while not clock.waited_for(100):
            await asyncio.sleep(0)
        clock.pass_time(101)
        while manager.list_zones()[0].state.live:
            await asyncio.sleep(0)
        assert manager.list_zones()[0].state is State.FAILED
        await host.stop()

    run(work())


def test_guest_that_started_while_no_zoned_looked_is_not_taken_for_one_that_hangs(host: Host) -> None:
    async def work() -> None:
        manager, clock, boot = await hanging(host, start_timeout_s=300)
        await boot
        guest = host.guest()
        await host.kill()
        guest.silent = False
        guest.started()
        clock.pass_time(1000)
        manager = await host.start()
        assert (await manager.wait("web", "ready")).state is State.READY
        clock.pass_time(1000)
        await asyncio.sleep(0.02)
        assert manager.list_zones()[0].state is State.READY
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_start_timeout_that_is_none_is_refused(host: Host, seconds: float) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match="start timeout: expected 0 or more seconds"):
            await manager.boot(host.request(start_timeout_s=seconds))
        await host.stop()

    run(work())
