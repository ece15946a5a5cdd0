"""Several containers in one zone, each from a disk of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.daemonworld import Host, run

from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.errors import NameTaken, UnknownZone, WrongState
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import WorkloadRequest, WorkloadState


@pytest.fixture(autouse=True)
def disks(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is plugged in; the hot-plug itself is tested with runtime.boot."""
    plugged: dict[str, str] = {}

    def plug(edge: Any, domain: Any, device: Any, record: Any) -> str:
        vdev = f"xvd{'cdefgh'[len(plugged)]}"
        plugged[vdev] = str(device)
        return vdev

    monkeypatch.setattr(Edge, "plug", plug)
    monkeypatch.setattr(Edge, "unplug", lambda edge, domain, vdev, record: plugged.pop(vdev))
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
        assert (made.state, made.device) == (WorkloadState.CREATED, "xvdc") and disks == {"xvdc": "/dev/loop7"}
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
