"""Restart policies, with time that passes when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run

from pipeline.bundle.model import Port
from runtime.host.daemon import policy
from runtime.host.daemon.errors import BadRequest, UnknownZone
from runtime.host.daemon.model import ExitStatus, PortRule, RestartPolicy, State
from runtime.net.errors import PortTaken
from runtime.net.published import listen_on

GOOD, BAD = ExitStatus(), ExitStatus(1)


@pytest.mark.parametrize(
    ("name", "most", "exit", "restarts", "again"),
    [
        ("no", 0, BAD, 0, False),
        ("on-failure", 0, GOOD, 0, False),
        ("on-failure", 0, BAD, 1000, True),
        ("on-failure", 3, BAD, 2, True),
        ("on-failure", 3, BAD, 3, False),
        ("on-failure", 0, ExitStatus(137, 9), 0, True),
        ("on-failure", 0, ExitStatus(crashed=True), 0, True),
        ("on-failure", 0, ExitStatus(oom=True), 0, True),
        ("always", 0, GOOD, 1000, True),
        ("unless-stopped", 0, GOOD, 0, True),
    ],
)
def test_policy_decides_by_exit_and_count(name: str, most: int, exit: ExitStatus, restarts: int, again: bool) -> None:
    assert policy.comes_again(RestartPolicy(name, most), exit, restarts=restarts) is again


def test_pauses_double_to_a_minute_and_begin_anew_after_a_steady_run() -> None:
    pauses, pause = [], 0.0
    for _ in range(12):
        pause = policy.pause_s(pause, ran_s=0.5)
        pauses.append(pause)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8] and pauses[-1] == 60.0
    assert policy.pause_s(60.0, ran_s=10.0) == 0.1


async def settled(predicate: Callable[[], Any]) -> None:
    while not predicate():
        await asyncio.sleep(0.005)


def test_failing_zone_comes_again_after_growing_pauses_until_its_retries_are_used_up(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(restart=RestartPolicy("on-failure", 2)))
        (zone,) = manager.core.zones.values()
        uuids = [zone.uuid]
        for pause in (0.1, 0.2):
            host.guest().exit("code 1")
            await settled(lambda due=pause: zone.state is State.RESTARTING and clock.waited_for(due))
            assert host.leftovers() == []
            clock.pass_time(pause * 0.9)
            await asyncio.sleep(0.02)
            assert zone.state is State.RESTARTING, "it came again too early"
            clock.pass_time(pause * 0.2)
            await settled(lambda: zone.run is not None and zone.run.up)
            uuids.append(zone.uuid)
        assert len(set(uuids)) == 3 and zone.restarts == 2
        host.guest().exit("code 1")
        await settled(lambda: not zone.state.live)
        info = await manager.get("web")
        assert info.restarts == 2 and info.exit is not None and info.exit.code == 1
        await host.stop()

    run(work())


async def paused(host: Host, clock: FakeClock, pause_s: float) -> Any:
    """The zone of this host, once it pauses for so long."""
    assert host.manager is not None
    (zone,) = host.manager.core.zones.values()
    await settled(lambda: zone.state is State.RESTARTING and clock.waited_for(pause_s))
    return zone


@pytest.mark.parametrize("retries", [1, 3])
def test_zoned_killed_in_each_pause_costs_no_retry(host: Host, retries: int) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(restart=RestartPolicy("on-failure", retries)))
        for number in range(1, retries + 1):
            pause_s = 0.1 * 2 ** (number - 1)
            host.guest().exit("code 1")
            await paused(host, clock, pause_s)
            await host.kill()
            manager = await host.start()
            zone = await paused(host, clock, pause_s)
            assert zone.restarts == number
            clock.pass_time(pause_s)
            await settled(lambda zone=zone: zone.run is not None and zone.run.up)
            assert zone.restarts == number
        host.guest().exit("code 1")
        await settled(lambda: not zone.state.live)
        info = await manager.get("web")
        assert (info.state, info.restarts) == (State.EXITED, retries)
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_next_zoned_waits_for_what_is_left_of_a_pause(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(restart=RestartPolicy("always")))
        for pause_s in (0.1, 0.2, 0.4, 0.8, 1.6):
            host.guest().exit("code 1")
            zone = await paused(host, clock, pause_s)
            if pause_s < 1.6:
                clock.pass_time(pause_s)
                await settled(lambda zone=zone: zone.run is not None and zone.run.up)
        clock.pass_time(0.6)
        await host.kill()
        manager = await host.start()
        await paused(host, clock, 1.0)
        await host.kill()
        clock.time -= 3600  # a clock that is set back makes no pause longer
        manager = await host.start()
        zone = await paused(host, clock, 1.6)
        assert zone.restarts == 5
        assert (await manager.stop("web")).state is State.EXITED
        await host.stop()

    run(work())


def test_backoff_goes_on_after_an_adoption_and_begins_anew_after_a_steady_run(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(restart=RestartPolicy("always")))
        host.guest().exit("code 1")
        zone = await paused(host, clock, 0.1)
        clock.pass_time(0.1)
        await settled(lambda: zone.run is not None and zone.run.up)
        await host.kill()
        manager = await host.start()  # adopts it
        host.guest().exit("code 1")
        zone = await paused(host, clock, 0.2)
        clock.pass_time(0.2)
        await settled(lambda: zone.run is not None and zone.run.up)
        guest = host.guest()
        await host.kill()
        guest.exit("code 1")
        manager = await host.start()  # finds it ended
        zone = await paused(host, clock, 0.4)
        clock.pass_time(0.4)
        await settled(lambda: zone.run is not None and zone.run.up)
        guest = host.guest()
        await host.kill()
        clock.pass_time(policy.STEADY_S)
        guest.exit("code 1")
        manager = await host.start()
        zone = await paused(host, clock, 0.1)
        await manager.stop("web")
        assert zone.restarts == 4
        await host.stop()

    run(work())


def test_start_that_a_kill_of_zoned_interrupts_is_a_failed_one(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(restart=RestartPolicy("on-failure", 1)))
        host.guest().exit("code 1")
        zone = await paused(host, clock, 0.1)
        host.kill_at = len(host.steps) + 4  # its ledger has been made, and says whose it is
        clock.pass_time(0.1)
        await settled(host.killed.is_set)
        await host.kill()
        manager = await host.start()
        (zone,) = manager.core.zones.values()
        assert (zone.state, zone.restarts) == (State.FAILED, 1)
        assert zone.exit is not None and zone.exit.reason == "interrupted"
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_clean_exit_ends_on_failure_and_not_always(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request("once", restart=RestartPolicy("on-failure")))
        await manager.boot(host.request("ever", restart=RestartPolicy("always")))
        once, ever = (next(z for z in manager.core.zones.values() if z.name == name) for name in ("once", "ever"))
        host.guest("once").exit("code 0")
        host.guest("ever").exit("code 0")
        await settled(lambda: once.state is State.EXITED and ever.state is State.RESTARTING and clock.waited_for(0.1))
        clock.pass_time(1)
        await settled(lambda: ever.run is not None and ever.run.up)
        await manager.stop("ever")
        assert ever.state is State.EXITED
        await host.stop()

    run(work())


def test_stop_ends_the_pause(host: Host) -> None:
    async def work() -> None:
        host.clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(restart=RestartPolicy("always")))
        (zone,) = manager.core.zones.values()
        host.guest().exit("code 4")
        await settled(lambda: zone.state is State.RESTARTING)
        info = await manager.stop("web")
        assert info.state is State.EXITED and info.exit is not None and info.exit.code == 4
        await host.stop()

    run(work())


def test_ports_stay_taken_while_the_zone_pauses(host: Host) -> None:
    async def work() -> None:
        host.clock = clock = FakeClock()
        manager = await host.start()
        info = await manager.boot(host.request(restart=RestartPolicy("always"), ports=(PortRule(80),)))
        (zone,) = manager.core.zones.values()
        number = info.ports[0].port
        host.guest().exit("code 1")
        await settled(lambda: zone.state is State.RESTARTING and clock.waited_for(0.1))
        with pytest.raises(PortTaken):
            listen_on("other", Port("127.0.0.1", number, 80))
        clock.pass_time(1)
        await settled(lambda: zone.run is not None and zone.run.up)
        (item,) = host.networks["web"].listening
        assert (item.address, item.port, item.zone_port) == ("127.0.0.1", number, 80)
        await manager.stop("web")
        listen_on("other", Port("127.0.0.1", number, 80)).listener.close()
        await host.stop()

    run(work())


def test_restart_on_demand_does_not_count_and_keeps_the_id(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        before = await manager.boot(host.request())
        after = await manager.restart("web")
        assert after.id == before.id and after.domain_uuid != before.domain_uuid and after.restarts == 0
        await manager.stop("web")
        assert (await manager.restart("web")).state.up
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize(
    ("restart", "remove", "match"),
    [
        (RestartPolicy("sometimes"), False, "no, on-failure, always, unless-stopped"),
        (RestartPolicy("always", 3), False, "retries with on-failure only"),
        (RestartPolicy("always"), True, "a restart policy or removal"),
    ],
)
def test_policies_that_make_no_sense_are_refused(host: Host, restart: RestartPolicy, remove: bool, match: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match=match):
            await manager.boot(host.request(restart=restart, remove=remove))
        await host.stop()

    run(work())


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_restart_of_a_zone_that_is_removed_meanwhile_starts_nothing(host: Host, running: bool) -> None:
    async def work() -> None:
        host.xen.free = host.xen.total = 70 << 8  # one zone of 48 MiB, not two
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        if not running:
            await manager.stop("web")
        restart = asyncio.create_task(manager.restart("web", 0.0))
        removed = asyncio.create_task(manager.remove("web", force=True))
        with pytest.raises(UnknownZone, match="zone web"):
            await restart
        await removed
        assert manager.list_zones() == [] and host.leftovers() == []
        await manager.boot(host.request(until_ready=True))  # what the restart was promised is free
        await host.stop(end_zones=True)

    run(work())
