"""Zones have their host's time, and entropy of its, as long as they run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run

from pipeline.bundle.model import Capabilities, Confinement
from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.timekeeping import INTERVAL_S


async def booted(host: Host, **keywords: Any) -> tuple[Manager, FakeClock]:
    """A zone whose clock is looked at the next time in INTERVAL_S."""
    clock = host.clock = FakeClock()
    manager = await host.start()
    await manager.boot(host.request(until_ready=True, **keywords))
    while not clock.waited_for(INTERVAL_S):
        await asyncio.sleep(0)
    return manager, clock


async def once_more(clock: FakeClock) -> None:
    clock.pass_time(INTERVAL_S)
    while not clock.waited_for(INTERVAL_S):
        await asyncio.sleep(0)


def asked(host: Host, method: str) -> list[Any]:
    return [params for called, params in host.guest().calls if called == method]


@pytest.mark.parametrize(
    ("off_s", "set_to"), [(0, False), (0.9, False), (-0.9, False), (1.1, True), (-3600, True), (1e9, True)]
)
def test_a_clock_that_is_off_is_set_and_told_and_another_left_alone(host: Host, off_s: float, set_to: bool) -> None:
    async def work() -> None:
        manager, clock = await booted(host)
        host.guest().answers["clock"] = lambda params: {"unix_ns": int((clock.now() + off_s) * 1e9)}
        host.guest().calls.clear()
        await once_more(clock)
        assert asked(host, "clock") == [{}, *([{"unix_ns": int(clock.now() * 1e9)}] if set_to else [])]
        events = [event async for event in manager.events(from_start=True, follow=False) if event.kind == "zone.clock"]
        assert [event.attributes for event in events] == ([{"off_s": f"{off_s:.3f}"}] if set_to else [])
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("told", [None, "late", True, -1, 1 << 70, 1e18])
def test_a_zone_that_tells_no_time_is_set_to_none(host: Host, told: object) -> None:
    async def work() -> None:
        _, clock = await booted(host)
        host.guest().answers["clock"] = lambda params: {"unix_ns": told}
        await once_more(clock)
        assert {} in asked(host, "clock") and not any(asked(host, "clock"))
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("rights", [("SYS_TIME",), ("ALL",)])
def test_a_workload_that_may_set_the_clock_keeps_it(host: Host, rights: tuple[str, ...]) -> None:
    async def work() -> None:
        _, clock = await booted(host, confinement=Confinement(capabilities=Capabilities(bounding=rights)))
        await once_more(clock)
        assert asked(host, "clock") == [] and len(asked(host, "reseed")) == 2
        await host.stop(end_zones=True)

    run(work())


def test_each_time_it_gets_another_seed(host: Host) -> None:
    async def work() -> None:
        _, clock = await booted(host)
        await once_more(clock)
        seeds = [bytes.fromhex(params["seed"]) for params in asked(host, "reseed")]
        assert len(set(seeds)) == len(seeds) == 2 and {len(seed) for seed in seeds} == {32}
        await host.stop(end_zones=True)

    run(work())


def test_an_agent_that_knows_neither_is_asked_no_more_and_one_that_fails_is(host: Host) -> None:
    def refuses(reason: str) -> Any:
        def answer(params: Any) -> Any:
            fault = AgentFault("zone web", got="no")
            fault.reason = reason
            raise fault

        return answer

    async def work() -> None:
        _, clock = await booted(host)
        host.guest().answers["reseed"] = refuses("EPERM")
        await once_more(clock)
        assert len(asked(host, "clock")) == 2
        host.guest().answers["reseed"] = refuses("method")
        clock.pass_time(INTERVAL_S)
        while len(asked(host, "reseed")) < 3:
            await asyncio.sleep(0)
        assert not clock.waited_for(INTERVAL_S) and len(asked(host, "clock")) == 2
        await host.stop(end_zones=True)

    run(work())
