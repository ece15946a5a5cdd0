"""Zones that are made and ended at once, while zoned is killed again and again: no deadlock, and nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from support.daemonworld import Host, Killed, run

from runtime.errors import RuntimeFault
from runtime.host.daemon.manager import Manager

ROUNDS = 6
MOST_STEPS = 120  # of a round; a boot has about 25


async def live(host: Host, manager: Manager, name: str, chance: random.Random) -> None:
    """Boot, and in one of the ways there are end, until zoned is killed."""
    while True:
        with contextlib.suppress(RuntimeFault):  # such as a zone of that name, which an earlier zoned booted
            await manager.boot(host.request(name, until_ready=chance.random() < 0.7))
        await asyncio.sleep(chance.random() * 0.02)
        with contextlib.suppress(RuntimeFault):
            match chance.randrange(4):
                case 0:
                    await manager.stop(name)
                case 1:
                    await manager.kill(name)
                case 2:
                    await manager.restart(name)
            await manager.remove(name, force=True)


@pytest.mark.parametrize("zones", [2, 4, 8])
def test_kills_amid_zones_that_come_and_go_leave_no_deadlock_and_nothing_else(host: Host, zones: int) -> None:
    chance = random.Random(zones)

    async def work() -> None:
        killed = 0
        for _ in range(ROUNDS):
            manager = await host.start()
            host.kill_at = len(host.steps) + chance.randrange(1, MOST_STEPS)
            lives = [asyncio.create_task(live(host, manager, f"zone{number}", chance)) for number in range(zones)]
            while not host.killed.is_set():
                await asyncio.sleep(0.002)
                ended = [one for one in lives if one.done()]
                assert all(isinstance(one.exception(), Killed) for one in ended), ended
            killed += 1
            await host.kill()
            await asyncio.gather(*lives, return_exceptions=True)
        manager = await host.start()
        for zone in list(manager.core.zones.values()):
            await manager.remove(zone.id, force=True)
        await host.stop()
        assert killed == ROUNDS
        assert host.leftovers() == []

    run(work())
