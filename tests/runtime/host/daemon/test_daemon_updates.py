"""Changes of a zone that cannot be had whole: nothing of them stays; and updates beside what ends the zone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.gates import held

from runtime.boot import resize
from runtime.errors import RuntimeFault
from runtime.host.daemon import growth
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.errors import BadRequest, NotEnough, UnknownZone, WrongState
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import PortRule, State, Update
from runtime.host.ledger import Ledger

EVERYTHING = Update(
    memory_mib=192, vcpus=2, add_ports=(PortRule(443),), egress=("deny 192.0.2.0/24",), bandwidth_bit_s=1_000_000
)


class Broken(RuntimeFault):
    """What fails in these tests."""


async def booted(host: Host) -> Manager:
    manager = await host.start()
    await manager.boot(
        host.request(memory_mib=128, memory_max_mib=256, vcpus_max=2, ports=(PortRule(80),), until_ready=True)
    )
    return manager


def state_of(host: Host, manager: Manager) -> dict[str, Any]:
    """All that an update may change: of Xen, of xenstore, of the network, of what is known."""
    (zone,) = manager.core.zones.values()
    assert zone.run is not None and zone.run.domain is not None
    home = f"/local/domain/{zone.run.domain.domid}"
    network = host.networks["web"]
    return {
        "limit": host.xen.domains[zone.run.domain.domid].max_kib,
        "target": host.xenstored.value(f"{home}/memory/target"),
        "vcpus": [host.xenstored.value(f"{home}/cpu/{number}/availability") for number in (0, 1)],
        "ports": sorted((item.port, item.zone_port) for item in network.listening),
        "egress": tuple(network.egress),
        "bandwidth": network.bandwidth_bit_s,
        "request": zone.request,
        "shown": zone.ports,
        "promised": dict(manager.core.admission._promised),
    }


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, first: bool) -> None:
    """Its next call fails, before or after it has done what it does; later ones do not."""
    work: Callable[..., Any] = getattr(owner, name)
    failed = False

    def fail_once(*arguments: Any, **keywords: Any) -> Any:
        nonlocal failed
        if failed:
            return work(*arguments, **keywords)
        failed = True
        if not first:
            work(*arguments, **keywords)
        raise Broken("it", got="broke")

    monkeypatch.setattr(owner, name, fail_once)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("step", ["set_memory", "set_vcpus", "judge_by", "limit", "record"])
def test_update_that_fails_at_a_step_leaves_all_as_it_was(
    host: Host, monkeypatch: pytest.MonkeyPatch, step: str, first: bool
) -> None:
    async def work() -> None:
        manager = await booted(host)
        online: list[int] = []
        host.guest().answers["cpus"] = lambda params: {"n": online.append(params["online"])}
        before = state_of(host, manager)
        network = host.networks["web"]
        with monkeypatch.context() as patched:
            if step == "record":
                record = Ledger.record

                def refuse(ledger: Ledger, kind: str, **fields: Any) -> None:
                    if kind == "network":
                        raise OSError(28, "No space left on device")
                    record(ledger, kind, **fields)

                patched.setattr(Ledger, "record", refuse)
            else:
                failing(patched, Edge if step.startswith("set_") else type(network), step, first=first)
            with pytest.raises((Broken, OSError)):
                await manager.update("web", EVERYTHING)
        if step in ("judge_by", "limit") and not first:  # what an engine that failed has, it alone knows
            before |= {"egress": state_of(host, manager)["egress"], "bandwidth": state_of(host, manager)["bandwidth"]}
        assert state_of(host, manager) == before
        last = {"set_memory": [], "set_vcpus": [1]}
        assert online == last.get(step, [2, 1]), "the guest's own part"
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_was_made_with_less_than_others_need_gets_its_own_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(memory_mib=48, memory_max_mib=128, vcpus_max=2, until_ready=True))
        before = state_of(host, manager)
        with monkeypatch.context() as patched:
            failing(patched, Edge, "set_vcpus", first=True)
            with pytest.raises(Broken):
                await manager.update("web", Update(memory_mib=64, vcpus=2))
        assert state_of(host, manager) == before
        await host.stop(end_zones=True)

    run(work())


def balloon(host: Host, manager: Manager, to_mib: int) -> None:
    """Its guest takes memory, which is Xen's no more."""
    (zone,) = manager.core.zones.values()
    assert zone.run is not None and zone.run.domain is not None
    with host.xen.lock:
        host.xen.balloon(zone.run.domain.domid, to_mib * 256)


async def promise_is_over(manager: Manager, clock: FakeClock) -> None:
    while manager.core.admission._promised:
        clock.pass_time(1)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("next_zoned", [False, True])
def test_memory_of_a_zone_that_grows_slowly_is_no_others(host: Host, next_zoned: bool) -> None:
    async def work() -> None:
        clock = host.clock = FakeClock()
        manager = await booted(host)
        with host.xen.lock:
            host.xen.free = 140 * 256
        await manager.update("web", Update(memory_mib=256))
        if next_zoned:
            await host.kill()
            manager = await host.start()
        for mib in (128, 150, 200):  # all the while, the balloon takes it page by page
            balloon(host, manager, mib)
            clock.pass_time(10)
            await asyncio.sleep(0.02)
            with pytest.raises(NotEnough, match="MiB of them promised to zones that are being started or grow"):
                await manager.boot(host.request("late", memory_mib=48))
        balloon(host, manager, 256)
        await promise_is_over(manager, clock)
        with host.xen.lock:
            host.xen.free += 60 * 256
        await manager.boot(host.request("late", memory_mib=48))
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("how", ["it never takes it", "it ends", "it is asked for less"])
def test_memory_that_a_zone_does_not_take_is_free_again(host: Host, how: str) -> None:
    async def work() -> None:
        clock = host.clock = FakeClock()
        manager = await booted(host)
        with host.xen.lock:
            host.xen.free = 140 * 256
        await manager.update("web", Update(memory_mib=256))
        with pytest.raises(NotEnough):
            await manager.boot(host.request("late", memory_mib=48))
        if how == "it ends":
            await manager.stop("web", 0)
        elif how == "it is asked for less":
            await manager.update("web", Update(memory_mib=128))
        else:
            clock.pass_time(growth.LONGEST_S)
        await promise_is_over(manager, clock)
        await manager.boot(host.request("late", memory_mib=48))
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("how", ["it never takes it", "it takes it", "it ends"])
def test_memory_of_an_update_before_one_that_fails_is_free_again(
    host: Host, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def work() -> None:
        clock = host.clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(memory_mib=128, memory_max_mib=512, vcpus_max=2, until_ready=True))
        others = set(manager.core.tasks)
        await manager.update("web", Update(memory_mib=256))
        (promised,) = manager.core.admission._promised.values()
        (watcher,) = manager.core.tasks - others
        reached, go_on = threading.Event(), threading.Event()

        def fail(*_: Any) -> None:
            reached.set()
            assert go_on.wait(120)
            raise Broken("it", got="broke")

        with monkeypatch.context() as patched:
            patched.setattr(Edge, "set_vcpus", fail)
            update = asyncio.create_task(manager.update("web", Update(memory_mib=400, vcpus=2)))
            await asyncio.to_thread(reached.wait, 120)
            while not watcher.done():  # it leaves the rest to the second update
                clock.pass_time(1)
                await asyncio.sleep(0.01)
            if how == "it ends":
                await manager.stop("web", 0)
            go_on.set()
            with pytest.raises(Broken):
                await update
        if how != "it ends":
            assert list(manager.core.admission._promised.values()) == [promised], "it may take that still"
        if how == "it takes it":
            balloon(host, manager, 256)
        elif how == "it never takes it":
            clock.pass_time(growth.LONGEST_S)
        await promise_is_over(manager, clock)
        await host.stop(end_zones=True)

    run(work())


def test_step_into_a_maximum_that_another_zone_took_is_refused_whole(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        before = state_of(host, manager)
        with host.xen.lock:
            host.xen.free = 1024
        with pytest.raises(NotEnough, match="of free memory in Xen"):
            await manager.update("web", EVERYTHING)
        assert state_of(host, manager) == before
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
@pytest.mark.parametrize("mib", [1, 95, 0, -5])
def test_memory_that_no_zone_goes_on_with_is_refused(host: Host, mib: int, ended: bool) -> None:
    async def work() -> None:
        manager = await booted(host)
        if ended:
            await manager.stop("web")
        with pytest.raises(BadRequest, match=r"zone web, memory: expected 96 (to|MiB at least)"):
            await manager.update("web", Update(memory_mib=mib))
        assert (await manager.get("web")).memory_mib == 128
        assert (await manager.update("web", Update(memory_mib=96))).memory_mib == 96
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("when", ["before", "after"], ids=["before it is asked", "after it was asked"])
def test_update_of_a_zone_that_is_destroyed_meanwhile(host: Host, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    async def work() -> None:
        manager = await booted(host)
        reached, go_on = held(monkeypatch, Edge, "set_memory")
        update = asyncio.create_task(manager.update("web", EVERYTHING))
        await asyncio.to_thread(reached.wait, 120)
        if when == "before":
            await manager.remove("web", force=True)
            go_on.set()
        else:
            go_on.set()
            await manager.remove("web", force=True)
        (said,) = await asyncio.gather(update, return_exceptions=True)
        assert not isinstance(said, Exception) or isinstance(said, RuntimeFault), repr(said)
        if when == "before":
            assert isinstance(said, RuntimeFault)
        assert manager.list_zones() == [] and host.leftovers() == []
        assert manager.core.admission._promised == {}
        rows = await manager.core.database.read("SELECT name FROM zones")
        assert rows == [], "what is removed does not come back"
        await host.stop()
        manager = await host.start()
        assert manager.list_zones() == []
        await host.stop()

    run(work())


def test_destroyed_while_its_row_is_to_be_written_it_stays_removed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await booted(host)
        (zone,) = manager.core.zones.values()
        apply = resize.set_vcpus

        def remove_first(*arguments: Any) -> Any:
            done = apply(*arguments)
            asyncio.run_coroutine_threadsafe(manager.remove("web", force=True), manager.core.loop).result(120)
            return done

        monkeypatch.setattr(resize, "set_vcpus", remove_first)
        with pytest.raises(UnknownZone, match="it has been removed"):
            await manager.update("web", Update(vcpus=2))
        assert zone.removed and await manager.core.database.read("SELECT name FROM zones") == []
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_updates_of_one_zone_come_one_after_the_other(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await booted(host)
        reached, go_on = held(monkeypatch, Edge, "set_memory")
        one = asyncio.create_task(manager.update("web", Update(memory_mib=160)))
        await asyncio.to_thread(reached.wait, 120)
        two = asyncio.create_task(manager.update("web", Update(vcpus=2)))
        await asyncio.sleep(0)
        assert not two.done()
        go_on.set()
        await one
        both = await two
        assert (both.memory_mib, both.vcpus) == (160, 2), "neither takes back the other's"
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_stops_cannot_be_updated(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        host.guest().stops_when_asked = False
        (zone,) = manager.core.zones.values()
        stop = asyncio.create_task(manager.stop("web", 600))
        while zone.state is not State.STOPPING:
            await zone.changes.after(zone.changes.count)
        with pytest.raises(WrongState, match="it is stopping"):
            await manager.update("web", Update(memory_mib=160))
        host.guest().exit("code 0")
        await stop
        await host.stop()

    run(work())
