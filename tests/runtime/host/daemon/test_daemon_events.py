"""Events: in order, resumable, for slow readers and over restarts of zoned."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.fakeguest import Guest

from runtime.host.daemon import commands, rows
from runtime.host.daemon.errors import BadToken
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import Event


async def collect(events: Any) -> list[Event]:
    return [event async for event in events]


def test_events_tell_a_life_in_order(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        await manager.remove("web")
        found = await collect(manager.events(from_start=True, follow=False))
        assert [event.kind for event in found] == [
            *("zone.queued", "zone.creating", "zone.running", "zone.ready"),
            *("zone.stopping", "zone.exited", "zone.removed"),
        ]
        assert {event.zone for event in found} == {"web"} and found[5].attributes["code"] == "143"
        await host.stop()

    run(work())


async def removals(manager: Manager) -> list[str]:
    found = await collect(manager.events(from_start=True, follow=False))
    return [event.attributes.get("why", "") for event in found if event.kind == "zone.removed"]


def test_removal_of_a_zone_that_is_being_replaced_is_told_once(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        (old,) = manager.core.zones.values()
        boot = asyncio.create_task(manager.boot(host.request(until_ready=True)))
        while not old.changing.locked():
            await asyncio.sleep(0)
        assert (await commands.remove(manager.core, old, force=False)).id == old.id
        assert await removals(manager) == ["replaced"]
        await boot
        await manager.remove("web", force=True)
        assert await removals(manager) == ["replaced", ""]
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_zone_that_is_removed_before_it_is_replaced_is_told_once(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        (old,) = manager.core.zones.values()
        async with old.changing:
            removal = asyncio.create_task(manager.remove(old.id))
            boot = asyncio.create_task(manager.boot(host.request(until_ready=True)))
            while "web" not in manager.core.booting:
                await asyncio.sleep(0)
        await asyncio.gather(boot, removal)
        assert await removals(manager) == [""]
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_removes_itself_is_removed_once_by_force(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        for _ in range(3):
            await manager.boot(host.request(until_ready=True, remove=True))
            before = len(await removals(manager))
            await asyncio.gather(*(manager.remove("web", force=True) for _ in range(2)))
            assert (await removals(manager))[before:] == [""]
        await host.stop()

    run(work())


def test_removal_that_is_given_up_leaves_nothing_behind(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        waiting = asyncio.create_task(manager.wait("web", "removed"))
        removal = asyncio.create_task(manager.remove("web"))
        while manager.list_zones():
            await asyncio.sleep(0)
        removal.cancel()
        await asyncio.gather(removal, return_exceptions=True)
        await asyncio.wait_for(waiting, 120)
        assert not (host.path / "state" / "logs" / zone.id).exists()
        await host.stop()

    run(work())


def test_reader_resumes_behind_its_token_even_in_another_zoned(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        before = await collect(manager.events(from_start=True, follow=False))
        await host.kill()
        manager = await host.start()
        await manager.stop("web")
        after = await collect(manager.events(since=before[-1].token, follow=False))
        assert [event.kind for event in after] == ["zone.adopted", "zone.stopping", "zone.exited"]
        assert await collect(manager.events(since=after[-1].token, follow=False)) == []
        await host.stop()

    run(work())


def test_follower_gets_what_comes_and_only_of_its_zone(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("other", until_ready=True))
        zone = await manager.boot(host.request("web", until_ready=True))
        events = manager.events(zone="web")
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        await manager.stop("other")
        await manager.stop("web")
        first = await waiting
        assert (first.kind, first.zone_id) == ("zone.stopping", zone.id)
        assert (await anext(events)).kind == "zone.exited"
        await host.stop()

    run(work())


def test_slow_reader_loses_nothing(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        events = manager.events(from_start=True)
        for number in range(700):
            await manager.core.tell("test", None, number=str(number))
        found = [await anext(events) for _ in range(700)]
        assert [event.attributes["number"] for event in found] == [str(number) for number in range(700)]
        await host.stop()

    run(work())


def test_events_are_bounded_and_a_token_before_them_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(rows, "EVENTS_KEPT", 10)
        manager = await host.start()
        await manager.core.tell("first")
        (first,) = await collect(manager.events(from_start=True, follow=False))
        for _ in range(30):
            await manager.core.tell("more")
        assert len(await collect(manager.events(from_start=True, follow=False))) == 10
        with pytest.raises(BadToken, match="expected one whose successors are kept"):
            await collect(manager.events(since=first.token, follow=False))
        await host.stop()

    run(work())


@pytest.mark.parametrize("token", ["", "x", "-", "00000000-1", "{id}-", "{id}-x", "{id}--1", "{id}-999"])
def test_tokens_of_others_are_refused(host: Host, token: str) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.core.tell("one")
        given = token.format(id=manager.core.database.id)
        if not given:
            assert await collect(manager.events(since=given, follow=False)) == []
        else:
            with pytest.raises(BadToken, match="a token of this host"):
                await collect(manager.events(since=given, follow=False))
        await host.stop()

    run(work())


def test_health_is_told_as_it_changes_and_found_again_by_the_next_zoned(host: Host) -> None:
    async def healthy(manager: Any, state: str) -> None:
        while (await manager.get("web")).health != state:
            await asyncio.sleep(0.01)

    async def work() -> None:
        guest = Guest()
        guest.containers["main"].health, host.make_guest = "starting", lambda: guest
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await healthy(manager, "starting")
        guest.note("health", container="main", state="healthy", code=0, output="")
        await healthy(manager, "healthy")
        guest.note("health", container="side", state="unhealthy", code=1, output="")
        while not [event for event in await told(manager) if event.attributes["container"] == "side"]:
            await asyncio.sleep(0.01)
        assert (await manager.get("web")).health == "healthy", "the side container's is not the zone's"
        found = [(event.kind, event.attributes["state"]) for event in await told(manager)]
        assert found == [("zone.health", "healthy"), ("zone.health", "unhealthy")]
        await host.kill()
        guest.containers["main"].health = "unhealthy"
        manager = await host.start()
        await healthy(manager, "unhealthy")
        await manager.stop("web")
        assert (await manager.get("web")).health == ""
        await host.stop()

    async def told(manager: Any) -> list[Event]:
        found = await collect(manager.events(from_start=True, follow=False))
        return [event for event in found if event.kind == "zone.health"]

    run(work())


def test_port_is_told_as_it_opens_and_closes_and_not_by_each_session_again(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        for address, state in (("::", "open"), ("::1", "open"), ("::", "open"), ("::", "closed"), ("::", "open")):
            guest.note("port", state=state, address=address, port=80, protocol="tcp")
        guest.note("port", state="open", address="::", port=80, protocol="udp")

        async def told() -> list[tuple[str, str, str]]:
            events = [event async for event in manager.events(from_start=True, follow=False)]
            told = [event for event in events if event.kind.startswith("port.")]
            return [(one.kind, one.attributes["address"], one.attributes["protocol"]) for one in told]

        while len(found := await told()) < 5:
            await asyncio.sleep(0)
        sockets = [("open", "::"), ("open", "::1"), ("closed", "::"), ("open", "::")]
        assert found == [*((f"port.{state}", address, "tcp") for state, address in sockets), ("port.open", "::", "udp")]
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_greets_with_what_is_no_time_is_heard_all_the_same(host: Host) -> None:
    host.make_guest = boastful_guest

    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        while not host.guest().links[0].callbacks:
            await asyncio.sleep(0)
        host.guest().note("health", state="healthy", container="main")
        async for event in manager.events(from_start=True, zone="web"):
            if event.kind == "zone.health":
                break
        await host.stop(end_zones=True)

    run(work())


def boastful_guest() -> Guest:
    guest = Guest()
    guest.boot = {"workload": 10**400, "init": 0.5}
    return guest


def test_event_that_comes_between_any_two_looks_is_told_and_turns_no_reader_away(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        read, told = manager.core.database.read, 0

        async def interrupted(*arguments: Any) -> Any:
            nonlocal told
            rows = await read(*arguments)
            if told < 6:
                told += 1
                await manager.core.tell("test", None, number=str(told))
            return rows

        manager.core.database.read = interrupted  # type: ignore[method-assign]
        events = manager.events(from_start=True)
        assert [(await anext(events)).attributes["number"] for _ in range(6)] == list("123456")
        await events.aclose()
        await host.stop()

    run(work())


def test_zone_that_tells_more_and_more_does_not_push_the_events_of_others_out(host: Host) -> None:
    async def work() -> None:
        guest = Guest()
        host.make_guest = lambda: guest
        host.clock = clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        for first in range(1, 2000, 50):
            for port in range(first, first + 50):
                guest.note("port", state="open", address="0.0.0.0", port=port, protocol="tcp")
            await asyncio.sleep(0)
        async with asyncio.timeout(120):
            while not clock.waited_for(0.25):
                await asyncio.sleep(0.005)
        before = await opened(manager)
        assert 200 < before <= 256, "as many as come at once, of which some were about its boot"
        clock.pass_time(0.25)
        async with asyncio.timeout(120):
            while await opened(manager) == before:
                await asyncio.sleep(0.005)
        assert await opened(manager) == before + 1
        await manager.stop("web")
        assert host.leftovers() == []
        await host.stop()

    async def opened(manager: Any) -> int:
        found = await collect(manager.events(from_start=True, follow=False))
        return sum(event.kind == "port.open" for event in found)

    run(work())
