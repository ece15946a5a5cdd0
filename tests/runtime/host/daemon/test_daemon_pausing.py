"""Workloads that are paused, and limits of those that run; over an agent in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.fakeguest import FakeLink

from pipeline.bundle.model import Confinement, Process
from runtime.errors import RuntimeFault
from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon.errors import BadRequest, WrongState
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import Update


async def booted(host: Host, **keywords: Any) -> Manager:
    manager = await host.start()
    await manager.boot(host.request(until_ready=True, **keywords))
    host.guest().answers |= {"pause": lambda _: {"state": "paused"}, "resume": lambda _: {"state": "running"}}
    return manager


def asked(host: Host, *methods: str) -> list[tuple[str, Any]]:
    return [(method, params) for method, params in host.guest().calls if method in methods]


def test_a_paused_zone_is_ready_and_shown_as_paused(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        assert not (await manager.get("web")).paused
        found = await manager.pause("web")
        assert (found.state.value, found.paused) == ("ready", True) and (await manager.get("web")).paused
        await manager.pause("web")  # again: it is fine, and nothing has happened
        assert not (await manager.pause("web", paused=False)).paused
        assert [method for method, _ in asked(host, "pause", "resume")] == ["pause", "pause", "resume"]
        assert asked(host, "pause")[0][1] == {"id": "main"}
        events = [event.kind async for event in manager.events(from_start=True, follow=False)]
        assert [kind for kind in events if "paused" in kind] == ["zone.paused", "zone.unpaused"]
        await manager.pause("web")
        await manager.stop("web")
        assert not (await manager.get("web")).paused
        await host.stop(end_zones=True)

    run(work())


def test_a_pause_outlives_zoned(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        await manager.pause("web")
        host.guest().containers["main"].state = "paused"
        await host.kill()
        manager = await host.start()
        while not (await manager.get("web")).paused:
            await manager.core.clock.sleep(0.1)
        assert (await manager.get("web")).state.value == "ready"
        await manager.pause("web", paused=False)
        await host.stop(end_zones=True)

    run(work())


class Slow:
    """An agent that does what it is asked for at once, and says so when it is told to."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        call = FakeLink.call

        async def slow(link: FakeLink, name: str, params: Any = None, timeout_s: float = 10.0) -> Any:
            reply = await call(link, name, params, timeout_s)
            if name == method and not self.asked.is_set():
                self.asked.set()
                await self.answers.wait()
            return reply

        monkeypatch.setattr(FakeLink, "call", slow)


@pytest.mark.parametrize("paused", [True, False], ids=["pause", "unpause"])
def test_a_workload_goes_on_where_nobody_waits_any_more_for_it_to_stand_still(
    host: Host, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    async def work() -> None:
        manager = await booted(host)
        if not paused:
            await manager.pause("web")
        agent = Slow(host, monkeypatch, "pause" if paused else "resume")
        client = asyncio.create_task(manager.pause("web", paused=paused))
        await agent.asked.wait()
        other = asyncio.create_task(manager.pause("web"))
        await asyncio.sleep(0)
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client
        assert (await other).paused, "who asked after it gets what it asked for"
        await manager.pause("web", paused=False)
        wanted = ["pause", "resume", "pause", "resume"] if paused else ["pause", "resume", "resume", "pause", "resume"]
        assert [method for method, _ in asked(host, "pause", "resume")] == wanted
        events = [event.kind async for event in manager.events(from_start=True, follow=False)]
        told = ["zone.paused", "zone.unpaused"] * (1 if paused else 2)
        assert [kind for kind in events if "paused" in kind] == told
        await host.stop(end_zones=True)

    run(work())


def test_a_workload_that_stands_still_does_so_although_a_pause_of_it_was_given_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await booted(host)
        await manager.pause("web")
        agent = Slow(host, monkeypatch, "pause")
        client = asyncio.create_task(manager.pause("web"))
        await agent.asked.wait()
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client
        assert (await manager.pause("web")).paused
        assert asked(host, "resume") == []
        await host.stop(end_zones=True)

    run(work())


def test_what_a_session_began_with_is_older_than_what_was_asked_in_it(host: Host) -> None:
    async def work() -> None:
        clock = host.clock = FakeClock()
        manager = await booted(host)
        (link,) = host.guest().links
        (zone,) = manager.core.zones.values()
        assert zone.run is not None

        async def heard(boot_s: float) -> None:
            """Until the greeting of a new session, which tells of another boot, has been read."""
            while zone.run is not None and zone.run.zone_timings.get("init") != boot_s:
                clock.pass_time(2)
                await asyncio.sleep(0)

        for boot_s, paused in ((7.0, True), (8.0, False)):
            link.hello = {"boot": {"init": boot_s}, "containers": [{"id": "main", "state": "running"}]}
            if paused:
                assert (await manager.pause("web")).paused
            await heard(boot_s)
            assert (await manager.get("web")).paused == paused, "the next session knows it better"
        await host.stop(end_zones=True)

    run(work())


def test_what_cannot_be_paused_is_explained(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        host.guest().answers["pause"] = lambda _: {"state": "stopped"}
        with pytest.raises(WrongState, match="zone web: expected its workload running, got it has just ended"):
            await manager.pause("web")

        def refuse(_: Any) -> Any:
            raise AgentFault("zone web", got="the kernel has not done it yet")

        host.guest().answers["pause"] = refuse
        with pytest.raises(AgentFault, match="the kernel has not done it yet"):
            await manager.pause("web")
        assert asked(host, "pause", "resume")[-1][0] == "resume", "it may still come about"
        assert not (await manager.get("web")).paused
        await manager.stop("web")
        with pytest.raises(WrongState, match="zone web: expected its workload running, got it is exited"):
            await manager.pause("web")
        await host.stop(end_zones=True)

    run(work())


def test_limits_are_the_agents_at_once_and_the_zones_at_its_next_start(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, confinement=Confinement(limits={"pids.max": "64"}, init=True))
        changed = await manager.update("web", Update(limits={"memory.max": "67108864", "cpu.max": "max"}))
        everything = {"pids.max": "64", "memory.max": "67108864", "cpu.max": "max"}
        assert asked(host, "update") == [("update", {"id": "main", "limits": {"unified": everything}})]
        assert changed.limits == everything
        guest = host.guest()
        await manager.stop("web")
        await manager.update("web", Update(limits={"pids.max": "9"}))
        assert [method for method, _ in guest.calls].count("update") == 1, "it does not run"
        (zone,) = manager.core.zones.values()
        assert zone.bundle.confinement == Confinement(limits=everything | {"pids.max": "9"}, init=True)
        await host.stop(end_zones=True)

    run(work())


def test_limits_of_an_update_that_fails_are_as_before(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await booted(
            host, memory_mib=128, memory_max_mib=256, confinement=Confinement(limits={"pids.max": "64"})
        )

        def refuse(params: Any) -> Any:
            if params["limits"]["unified"].get("io.weight") == "7":
                raise AgentFault("zone web", got="expected the controller io")
            return {}

        host.guest().answers["update"] = refuse
        with pytest.raises(AgentFault, match="expected the controller io"):
            await manager.update("web", Update(memory_mib=200, limits={"io.weight": "7", "pids.max": "5"}))
        back = {"pids.max": "64", "io.weight": "100"}
        assert asked(host, "update")[-1] == ("update", {"id": "main", "limits": {"unified": back}})
        found = await manager.get("web")
        assert (found.limits, found.memory_mib) == ({"pids.max": "64"}, 128)
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"cgroup.freeze": "1"}, "zone web, limit: expected one of memory.max, .*, got 'cgroup.freeze'"),
        ({"pids.max": ""}, "zone web, limit pids.max: expected what its file takes, got ''"),
        ({"pids.max": "1\0"}, "zone web, limit pids.max: expected what its file takes"),
    ],
)
def test_limits_that_are_none_are_refused(host: Host, limits: dict[str, str], said: str) -> None:
    async def work() -> None:
        manager = await booted(host)
        with pytest.raises(BadRequest, match=said):
            await manager.update("web", Update(limits=limits))
        assert asked(host, "update") == []
        await host.stop(end_zones=True)

    run(work())


def test_a_zone_that_idles_has_no_workload_to_be_paused_or_limited(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(process=Process((), ())))
        for wrong in (manager.pause("web"), manager.update("web", Update(limits={"pids.max": "5"}))):
            with pytest.raises(RuntimeFault, match="zone web: expected a workload of its own, got none"):
                await wrong
        await host.stop(end_zones=True)

    run(work())
