"""Directories of the host that workloads have: plugged into their zone, served, and gone with them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from support.daemonworld import FakeClock, FakeShare, Host, run

from pipeline.bundle.model import Volume
from runtime.boot.errors import DeviceFault, DomainGone
from runtime.host.agentlink.model import AgentFault
from runtime.host.blockdevices import DeviceUnfit
from runtime.host.daemon import edge as edges
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import State, WorkloadInfo, WorkloadRequest, WorkloadState
from runtime.net.errors import EngineFault
from runtime.share.directories import ShareUnfit


async def booted(host: Host, **keywords: Any) -> Manager:
    manager = await host.start()
    await manager.boot(host.request(until_ready=True, **keywords))
    return manager


def directory(host: Host, name: str = "shared", target: str = "/data") -> Volume:
    (host.path / name).mkdir(exist_ok=True)
    return Volume(target, "directory", str(host.path / name))


def wanted(*mounts: Volume, name: str = "side", **container: Any) -> WorkloadRequest:
    return WorkloadRequest(name, "web", container={"process": {"argv": ["/x"]}, **container}, mounts=mounts)


async def create(host: Host, name: str = "side", *, shared: str = "shared", target: str = "/data") -> WorkloadInfo:
    assert host.manager is not None
    return await host.manager.create_workload(wanted(directory(host, shared, target), name=name))


def served(host: Host) -> dict[int, str]:
    """Directories that processes serve, by their numbers in the zone."""
    return {number: path.name for (_, number), path in sorted(host.shares.items())}


def tags(host: Host) -> list[str]:
    """Of the devices that the zone sees; each has both its halves."""
    nodes = host.xenstored.below("/local/domain")
    found = [host.xenstored.value(path) or "" for path in nodes if "/device/9pfs/" in path and path.endswith("/tag")]
    assert len([path for path in nodes if "/backend/9pfs/" in path and path.endswith("/frontend")]) == len(found)
    return sorted(found)


def test_workload_has_a_directory_until_it_is_destroyed(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        scratch = {"destination": "/data/tmp", "type": "tmpfs", "source": "tmpfs", "options": []}
        made = await manager.create_workload(wanted(directory(host), mounts=[scratch]))
        assert (made.state, made.tags) == (WorkloadState.CREATED, ("share0",))
        _, params = host.guest().calls[-1]
        shared, inside = params["spec"]["mounts"]
        assert inside == scratch, "below the directory, so mounted after it"
        assert (shared["destination"], shared["type"], shared["source"]) == ("/data", "9p", "share0")
        assert {"trans=xen", "version=9p2000.L", "nosuid", "nodev"} <= set(shared["options"])
        assert "ro" not in shared["options"]
        assert (served(host), tags(host)) == ({0: "shared"}, ["share0"])
        await manager.start_workload("side")
        await manager.destroy_workload("side")
        assert (served(host), tags(host)) == ({}, [])
        assert host.steps.index("unshare") < host.steps.index("unplug share"), "what serves it holds pages of the zone"
        assert [method for method, _ in host.guest().calls][-2:] == ["stop", "delete"]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_each_directory_has_a_number_that_its_zone_has_not_had(host: Host) -> None:
    async def work() -> None:
        volume = directory(host, "own", "/own")
        await booted(host, volumes=(volume,))
        first, second = await asyncio.gather(create(host, "first", shared="a"), create(host, "second", shared="b"))
        assert sorted(first.tags + second.tags) == ["share1", "share2"]
        assert set(served(host).values()) == {"own", "a", "b"} and tags(host) == ["share0", "share1", "share2"]
        assert host.manager is not None
        await host.manager.destroy_workload("second")
        assert (await create(host, "third", shared="c")).tags == ("share3",)
        assert tags(host) == ["share0", *first.tags, "share3"]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("where", ["connect", "agent"])
def test_workload_that_cannot_be_made_leaves_no_directory_behind(host: Host, where: str) -> None:
    async def work() -> None:
        manager = await booted(host)

        def refuse(params: dict[str, Any]) -> dict[str, Any]:
            raise AgentFault("zone web", got="no such file system")

        if where == "connect":
            host.connect_fails = DeviceFault("zone web", got="nothing of its driver")
        else:
            host.guest().answers["create"] = refuse
        with pytest.raises((DeviceFault, AgentFault), match=r"nothing of its driver|no such file system"):
            await manager.create_workload(wanted(directory(host), directory(host, "other", "/other")))
        (failed,) = manager.list_workloads("web")
        assert (failed.state, failed.tags) == (WorkloadState.FAILED, ())
        assert (served(host), host.followed, tags(host)) == ({}, set(), [])
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zone_whose_driver_does_nothing_is_not_waited_for_for_ever(host: Host) -> None:
    async def work() -> None:
        host.clock = FakeClock()
        manager = await booted(host)
        host.connects = False
        task = asyncio.create_task(create(host))
        while not task.done():
            await asyncio.sleep(0.001)
            host.clock.pass_time(1.0)
        with pytest.raises(DeviceFault, match="nothing of it within 60 s"):
            task.result()
        assert (served(host), host.followed, tags(host)) == ({}, set(), [])
        assert [item.state for item in manager.list_workloads()] == [WorkloadState.FAILED]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zone_that_ends_while_its_driver_is_waited_for_takes_all_with_it(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        host.connects = False
        task = asyncio.create_task(create(host))
        while "connect" not in host.steps:
            await asyncio.sleep(0.001)
        host.connect_fails = DomainGone("zone web", got="it has ended")  # as a share that looks at it finds
        await manager.stop("web")
        with pytest.raises(DomainGone):
            await task
        assert (served(host), host.followed, tags(host)) == ({}, set(), [])
        assert [item.state for item in manager.list_workloads()] == [WorkloadState.FAILED]
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_kernel_without_9p_is_told_before_anything_is_plugged(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host, filesystems=("squashfs", "ext4"))
        with pytest.raises(DeviceUnfit) as refused:
            await create(host)
        assert str(refused.value) == (
            f"workload side, directory {host.path}/shared:/data: expected a file system of the zone's kernel "
            "(squashfs, ext4), got 9p, which is CONFIG_9P_FS (where the kernel has it as a "
            'module, kernel_options.modules = ["9pnet_xen", "9p"] loads it)'
        )
        assert manager.list_workloads() == [] and tags(host) == []
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("name", ["state", "none", ".", "file"])
def test_directory_that_no_zone_may_have_is_refused_before_anything_is_plugged(host: Host, name: str) -> None:
    async def work() -> None:
        manager = await booted(host, filesystems=("9p",))
        (host.path / "file").touch()
        with pytest.raises(ShareUnfit, match="workload side, directory "):
            await manager.create_workload(wanted(Volume("/data", "directory", str(host.path / name))))
        assert manager.list_workloads() == [] and tags(host) == []
        await host.stop(end_zones=True)

    run(work())


def test_directory_outlives_a_kill_of_zoned_and_is_taken_back_by_the_next(host: Host) -> None:
    async def work() -> None:
        volume = directory(host, "own", "/own")
        await booted(host, volumes=(volume,))
        made = await create(host)
        await host.kill()
        assert (served(host), host.followed) == ({0: "own", 1: "shared"}, set())
        manager = await host.start()
        assert host.followed == set(host.shares)
        assert manager.get_workload("side").tags == made.tags == ("share1",)
        await manager.wait("web", "ready", 120)
        await manager.core.zones[next(iter(manager.core.zones))].run.link.connected.wait()  # type: ignore[union-attr]
        await manager.destroy_workload("side")
        assert (served(host), tags(host)) == ({0: "own"}, ["share0"])
        await host.stop()
        assert (served(host), host.followed) == ({0: "own"}, set()), "it serves on without a zoned"
        await host.start()
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_process_that_does_not_end_keeps_neither_other_directories_nor_the_domain(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits within a file system that answers no more."""
    close, stuck = FakeShare.close, EngineFault("process 7", expected="it to end when killed", got="it still runs")

    def closing(share: FakeShare) -> None:
        if share.place[1] == 0:
            raise stuck
        close(share)

    async def work() -> None:
        manager = await booted(host, volumes=(directory(host, "stuck", "/stuck"), directory(host, "own", "/own")))
        monkeypatch.setattr(FakeShare, "close", closing)
        await manager.stop("web")
        assert {number for _, number in host.followed} == {0}
        assert [zone.state for zone in manager.list_zones()] == [State.EXITED]
        assert not [info for info in manager.core.edge.hypervisor.domains() if info.domid]
        await host.stop()

    run(work())


def test_what_stays_of_a_run_is_told_after_all_else_was_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def stays(*_: Any, **__: Any) -> None:
        tried.append("processes")
        raise EngineFault("process 7", expected="it to end when killed", got="it still runs")

    monkeypatch.setattr(edges, "end_processes", stays)
    monkeypatch.setattr(edges, "teardown_domain", lambda *_, **__: tried.append("domain"))
    monkeypatch.setattr(edges, "teardown_network", lambda *_, **__: tried.append("network"))
    with pytest.raises(EngineFault, match="it still runs"):
        Edge(hypervisor=cast(Any, None), xenstore=cast(Any, None)).teardown([])
    assert tried == ["processes", "domain", "network"]


def test_zone_takes_the_directories_of_its_workloads_with_it(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        await create(host)
        await manager.stop("web")
        assert (served(host), host.followed, tags(host)) == ({}, set(), [])
        assert manager.get_workload("side").tags == ()
        await manager.destroy_workload("side")
        assert manager.list_workloads() == []
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_workload_of_a_zone_that_has_just_died_is_destroyed(host: Host) -> None:
    async def work() -> None:
        manager = await booted(host)
        await create(host)
        host.teardown_fails = DeviceFault("domain", got="it is still dying")
        host.guest().exit("code 0")
        await manager.destroy_workload("side")
        assert manager.list_workloads() == [] and served(host) == {}
        host.teardown_fails = None
        await manager.wait("web", "exited", 120)
        await host.stop()

    run(work())


async def make_and_unmake(host: Host, done: list[str]) -> None:
    assert host.manager is not None
    await create(host)
    done.append("made")
    await host.manager.destroy_workload("side")
    done.append("unmade")


STEPS = 22


def test_steps_of_a_mount_are_all_of_them(host: Host) -> None:
    async def count() -> int:
        await booted(host)
        before = len(host.steps)
        await make_and_unmake(host, [])
        count = len(host.steps) - before
        await host.stop(end_zones=True)
        return count

    assert run(count()) <= STEPS


@pytest.mark.parametrize("number", range(1, STEPS + 1))
def test_mount_that_zoned_was_killed_in_the_midst_of_is_whole_or_gone(host: Host, number: int) -> None:
    async def work() -> None:
        await booted(host)
        done: list[str] = []
        where = await host.kill_in_the_midst(number, make_and_unmake(host, done))
        where += f", after {done}"
        manager = await host.start()
        transient = (WorkloadState.CREATING, WorkloadState.DESTROYING)
        while any(item.state in transient for item in manager.list_workloads()):
            await asyncio.sleep(0.005)
        found = manager.list_workloads()
        if any(item.state is not WorkloadState.FAILED for item in found):
            assert (found[0].tags, served(host), tags(host)) == (("share0",), {0: "shared"}, ["share0"]), where
            assert host.followed == set(host.shares), where
            await manager.destroy_workload("side")
        elif found:
            assert found[0].tags == (), where
        assert (served(host), host.followed, tags(host)) == ({}, set(), []), where
        if found and found[0].state is WorkloadState.FAILED:
            await manager.destroy_workload("side")
        assert (await create(host)).state is WorkloadState.CREATED, where
        await host.stop(end_zones=True)
        assert host.leftovers() == [], where

    run(work())
