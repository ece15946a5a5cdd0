"""Several containers in one zone, each from a disk of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import FakeLoop, Host, HostEdge, Killed, run
from support.fakeguest import FakeLink

from runtime.host.agentlink.model import AgentFault
from runtime.host.check.expected import read_ledgers
from runtime.host.daemon import workloads
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.errors import NameTaken, UnknownZone, WrongState
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import WorkloadRequest, WorkloadState


@pytest.fixture(autouse=True)
def disks(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is plugged in; the hot-plug itself is tested with runtime.boot."""
    plugged: dict[str, str] = {}
    numbers = itertools.count(7)

    def plug(edge: Any, domain: Any, device: Any, record: Any) -> str:
        vdev = next(name for name in (f"xvd{letter}" for letter in "cdefgh") if name not in plugged)
        record("vbd", domid=domain.domid, uuid=domain.uuid, vdev=vdev, device=str(device))
        host.step("plug")
        plugged[vdev] = str(device)
        host.step("plug done")
        return vdev

    def unplug(edge: Any, domain: Any, vdev: str, record: Any) -> None:
        host.step("unplug")
        if vdev not in plugged:
            return
        device = plugged.pop(vdev)
        record("vbd.gone", domid=domain.domid, uuid=domain.uuid, vdev=vdev, device=device)

    def loop(edge: Any, path: Any, record: Any, *, readonly: bool = True) -> Any:
        device = f"/dev/loop{next(numbers)}"
        record("loop", device=device, file=str(path))
        made = FakeLoop(host, path, readonly=readonly)
        made.device = Path(device)
        return made

    monkeypatch.setattr(Edge, "plug", plug)
    monkeypatch.setattr(Edge, "unplug", unplug)
    monkeypatch.setattr(HostEdge, "loop", loop)
    return plugged


async def booted(host: Host) -> Manager:
    manager = await host.start()
    await manager.boot(host.request(until_ready=True))
    return manager


def wanted(host: Host, name: str = "side", **keywords: Any) -> WorkloadRequest:
    rootfs = host.request().bundle.rootfs
    return WorkloadRequest(name, "web", rootfs=rootfs, container={"process": {"argv": ["/x"]}}, **keywords)


def test_workload_is_created_started_stopped_and_destroyed(host: Host, disks: dict[str, str]) -> None:
    async def work() -> None:
        manager = await booted(host)
        made = await manager.create_workload(wanted(host, annotations={"k": "v"}))
        assert (made.state, made.device) == (WorkloadState.CREATED, "xvdc") and disks == {"xvdc": "/dev/loop8"}
        method, params = host.guest().calls[-1]
        assert (method, params["id"]) == ("create", made.id)
        assert params["spec"] == {"process": {"argv": ["/x"]}, "root": {"device": "xvdc"}}
        running = await manager.start_workload("side")
        assert running.state is WorkloadState.RUNNING
        host.guest().write(b"hello\n", container=made.id)
        entries = manager.logs("web", workload="side")
        while not [entry async for entry in entries]:
            await asyncio.sleep(0)
            entries = manager.logs("web", workload="side")
        stopped = await manager.stop_workload(made.id[:8])
        assert stopped.state is WorkloadState.COMPLETED and stopped.exit is not None and stopped.exit.code == 143
        await manager.destroy_workload("side")
        assert manager.list_workloads() == [] and disks == {}
        with pytest.raises(UnknownZone, match="workload side"):
            manager.get_workload("side")
        await host.stop(end_zones=True)

    run(work())


def test_workload_that_cannot_be_made_gives_its_disk_back(host: Host, disks: dict[str, str]) -> None:
    async def work() -> None:
        manager = await booted(host)

        def refuse(params: dict[str, Any]) -> dict[str, Any]:
            raise AgentFault("zone web", got="no such device")

        host.guest().answers["create"] = refuse
        with pytest.raises(AgentFault, match="no such device"):
            await manager.create_workload(wanted(host))
        (failed,) = manager.list_workloads("web")
        assert failed.state is WorkloadState.FAILED and "no such device" in failed.error and disks == {}
        await host.stop(end_zones=True)

    run(work())


def test_name_is_a_zones_own(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        await manager.create_workload(wanted(host))
        with pytest.raises(NameTaken, match="workload side"):
            await manager.create_workload(wanted(host))
        await host.stop(end_zones=True)

    run(work())


def test_exit_is_heard_and_workloads_outlive_a_kill_of_zoned(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        one = await manager.create_workload(wanted(host, "one"))
        two = await manager.create_workload(wanted(host, "two"))
        for name in ("one", "two"):
            await manager.start_workload(name)
        await host.kill()
        host.guests[next(iter(host.guests))].end_container(one.id, {"code": 4})
        manager = await host.start()
        while manager.get_workload("one").state is not WorkloadState.COMPLETED:
            await asyncio.sleep(0.01)
        ended = manager.get_workload("one")
        assert ended.exit is not None and ended.exit.code == 4 and ended.request.name == "one"
        assert manager.get_workload("two").state is WorkloadState.RUNNING
        host.guest().note("exit", container=two.id, signal=11)
        while manager.get_workload("two").state is not WorkloadState.COMPLETED:
            await asyncio.sleep(0.01)
        await host.stop(end_zones=True)

    run(work())


def test_zone_takes_its_workloads_with_it(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        await manager.create_workload(wanted(host))
        await manager.start_workload("side")
        await manager.stop("web")
        gone = manager.get_workload("side")
        assert (gone.state, gone.error) == (WorkloadState.FAILED, "its zone ended")
        with pytest.raises(WrongState, match="expected its zone running"):
            await manager.start_workload("side")
        await manager.destroy_workload("side")
        await host.stop()

    run(work())


def test_workloads_of_a_zone_that_is_removed_are_forgotten(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    call, asked, goes_on = FakeLink.call, asyncio.Event(), asyncio.Event()

    async def slow(link: FakeLink, method: str, *arguments: Any) -> Any:
        if method == "create":
            asked.set()
            await goes_on.wait()
            raise AgentFault("zone web", got="its session ended")
        return await call(link, method, *arguments)

    async def work() -> None:
        manager = await booted(host)
        await manager.create_workload(wanted(host))
        await manager.start_workload("side")
        with monkeypatch.context() as patched:
            patched.setattr(FakeLink, "call", slow)
            late = asyncio.create_task(manager.create_workload(wanted(host, "late")))
            await asked.wait()
            await manager.remove("web", force=True)
            goes_on.set()
            with pytest.raises(AgentFault):
                await late
        assert manager.list_workloads() == [] and manager.workloads.all == {}
        assert await manager.core.database.read("SELECT id FROM workloads") == []
        await host.stop()
        assert host.leftovers() == []

    run(work())


def ledger_says(manager: Manager) -> tuple[dict[str, str], set[str]]:
    """The disks and the loop devices that `zone system check` will look for, beside the zone's own."""
    expected = read_ledgers(manager.core.ledgers.all())
    (domain,) = expected.domains.values()
    own = dict(domain.disks)
    return {vdev: own[vdev] for vdev in own if vdev > "xvdb"}, set(expected.loops) - {"/dev/loop7"}


@pytest.mark.parametrize("older", [False, True], ids=["marked", "of an older zoned"])
def test_workload_of_an_earlier_zoned_gives_back_all_it_had(
    host: Host, disks: dict[str, str], monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    async def work() -> None:
        manager = await booted(host)
        if older:
            with monkeypatch.context() as patched:
                patched.setattr(workloads.functools, "partial", lambda record, **_: record)
                await manager.create_workload(wanted(host))
        else:
            await manager.create_workload(wanted(host))
        await manager.create_workload(wanted(host, "stays"))
        await manager.start_workload("side")
        stays = ({"xvdd": "/dev/loop9"}, {"/dev/loop9"})
        await host.kill()
        manager = await host.start()
        await manager.wait("web", "ready", 120)
        await manager.core.zones[next(iter(manager.core.zones))].run.link.connected.wait()  # type: ignore[union-attr]
        await manager.destroy_workload("side")
        assert ledger_says(manager) == stays and disks == stays[0]
        assert [item.name for item in manager.list_workloads()] == ["stays"]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


async def make_and_unmake(host: Host, done: list[str]) -> None:
    manager = host.manager
    assert manager is not None
    await manager.create_workload(wanted(host))
    done.append("made")
    await manager.start_workload("side")
    await manager.destroy_workload("side")
    done.append("unmade")


async def count_steps(host: Host) -> int:
    await booted(host)
    before = len(host.steps)
    await make_and_unmake(host, [])
    count = len(host.steps) - before
    await host.stop(end_zones=True)
    return count


STEPS = 24


def test_steps_of_a_workload_are_all_of_them(host: Host) -> None:
    assert run(count_steps(host)) <= STEPS


@pytest.mark.parametrize("number", range(1, STEPS + 1))
def test_workload_that_zoned_was_killed_in_the_midst_of_is_made_or_gone(
    host: Host, disks: dict[str, str], number: int
) -> None:
    async def work() -> None:
        manager = await booted(host)
        done: list[str] = []
        where = await host.kill_in_the_midst(number, make_and_unmake(host, done))
        where += f", after {done}"
        manager = await host.start()
        transient = (WorkloadState.CREATING, WorkloadState.DESTROYING)
        while any(item.state in transient for item in manager.list_workloads()):
            await asyncio.sleep(0.005)
        found = manager.list_workloads()
        listed = set(host.guest().containers) - {"main"}
        if "unmade" in done:
            assert found == [], where
        elif "made" in done:
            assert [item.state for item in found] in ([WorkloadState.CREATED], [WorkloadState.RUNNING], []), where
        if any(item.state is not WorkloadState.FAILED for item in found):
            assert listed == {found[0].id} and set(disks) == {found[0].device}, where
            assert ledger_says(manager)[0] == disks and ledger_says(manager)[1] == set(disks.values()), where
            await manager.destroy_workload("side")
        elif found:
            assert found[0].error == "zoned ended while it was created" and not found[0].device, where
        assert set(host.guest().containers) == {"main"}, where
        assert (disks, ledger_says(manager)) == ({}, ({}, set())), where
        if found and found[0].state is WorkloadState.FAILED:
            await manager.destroy_workload("side")
        assert (await manager.create_workload(wanted(host))).state is WorkloadState.CREATED, where
        await host.stop(end_zones=True)
        assert host.leftovers() == [], where

    run(work())


def test_workload_that_was_being_destroyed_goes_with_its_zone(host: Host, disks: dict[str, str]) -> None:
    async def work() -> None:
        manager = await booted(host)
        await manager.create_workload(wanted(host))
        guest = host.guest()
        host.kill_at = len(host.steps) + 3  # it is known as being destroyed, its disk is still there
        with contextlib.suppress(Killed, asyncio.CancelledError):
            await manager.destroy_workload("side")
        assert disks
        await host.kill()
        guest.exit("code 0")
        manager = await host.start()
        await manager.wait("web", "exited", 120)
        assert manager.list_workloads() == []
        await host.stop()

    run(work())


def test_disks_of_two_that_are_made_at_once_are_not_given_the_same_name(
    host: Host, monkeypatch: pytest.MonkeyPatch, disks: dict[str, str]
) -> None:
    """As between a look for a free name and the moment it is taken, which is a record on the disk later."""

    def plug(edge: Any, domain: Any, device: Any, record: Any) -> str:
        vdev = next(name for name in (f"xvd{letter}" for letter in "cdefgh") if name not in disks)
        time.sleep(0.1)
        assert vdev not in disks, "taken meanwhile"
        disks[vdev] = str(device)
        return vdev

    monkeypatch.setattr(Edge, "plug", plug)

    async def work() -> None:
        manager = await booted(host)
        made = await asyncio.gather(*(manager.create_workload(wanted(host, name)) for name in ("one", "two", "three")))
        assert sorted(workload.device for workload in made) == ["xvdc", "xvdd", "xvde"]
        await manager.close()

    run(work())
