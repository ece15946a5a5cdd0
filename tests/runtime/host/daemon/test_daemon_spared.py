"""One record, row or file that cannot be read: zoned starts, and all that it is not about goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.damage import change_row, ledger_of, write
from support.hostnetworks import FakeSegment

from runtime.host.daemon.edge import Edge
from runtime.host.daemon.model import WorkloadInfo, WorkloadRequest, WorkloadState, ZoneInfo
from runtime.host.daemon.rows import save_workload
from runtime.host.daemon.workloads import LEDGER_AGAIN_S, Workloads
from runtime.host.ledger import Ledger
from runtime.host.serve.control.messages import reservation_message
from runtime.net.declared import DeclaredLedger

UNREADABLE: list[dict[str, Any]] = [
    {"kind": "process", "share": 0, "pid": "one", "start_time": 1},
    {"kind": "process", "share": 0},
    {"kind": "net.directory"},
    {"kind": ["zone"]},
]


async def two_killed(host: Host, **of_web: Any) -> tuple[list[ZoneInfo], Path]:
    """Zones web and db, which run on without their zoned, and the ledger of web's run."""
    manager = await host.start()
    zones = [await manager.boot(host.request("web", until_ready=True, **of_web))]
    zones.append(await manager.boot(host.request("db", until_ready=True)))
    ledger = ledger_of(host, "web")
    await host.kill()
    return zones, ledger


def make_workload(host: Host, zone: ZoneInfo, name: str) -> None:
    """The row of one whose creation a zoned had begun."""
    info = WorkloadInfo(name, name, zone.id, WorkloadState.CREATING, WorkloadRequest(name, zone.name))
    sql, values = save_workload(info, zone.domain_uuid)
    change_row(host, sql, *values)


@pytest.mark.parametrize("record", UNREADABLE, ids=str)
def test_record_that_cannot_be_read_keeps_no_zoned_from_starting(host: Host, record: dict[str, Any]) -> None:
    async def work() -> None:
        before, ledger = await two_killed(host)
        write(ledger, record)
        manager = await host.start()
        await manager.wait("db", "ready", 120)
        assert "web" in host.networks and {zone.domid for zone in before} <= set(host.xen.domains)
        await host.stop()

    run(work())


@pytest.mark.parametrize(
    "record",
    [{"kind": "net.directory"}, {"kind": "net.engine"}, {"kind": "net.netns"}, {"kind": "process", "share": 0}],
)
@pytest.mark.parametrize("named", ["index", "number"])
def test_record_of_a_network_that_cannot_be_read_costs_that_network_only(
    host: Host, record: dict[str, Any], named: str
) -> None:
    """Also where its ledger does not say whose it is, and it is to be ended."""

    async def work() -> None:
        await two_killed(host, network="back")
        ledger = host.path / "run" / "networks" / "back.jsonl"
        ledger.write_text(ledger.read_text().replace('"index"', f'"{named}"'))
        write(ledger, record)
        manager = await host.start()
        await manager.wait("db", "ready", 120)
        await host.stop()

    run(work())


@pytest.mark.parametrize("step", ["adopt", "care"])
def test_network_that_cannot_be_taken_over_as_nobody_foresaw_costs_no_other(
    host: Host, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> Any:
        raise KeyError("pid")

    async def work() -> None:
        await two_killed(host, network="back")
        if step == "adopt":
            monkeypatch.setattr(FakeSegment, "adopt", fail)
        else:
            monkeypatch.setattr(Edge, "care_for", lambda _, network: isinstance(network, FakeSegment) and fail())
        manager = await host.start()
        await manager.wait("db", "ready", 120)
        await host.stop()

    run(work())


def test_strangers_that_cannot_be_read_are_all_that_is_there(host: Host) -> None:
    async def work() -> None:
        await host.start()
        await host.stop()
        logs = host.path / "state" / "logs" / "somebodys"
        logs.mkdir(parents=True)
        change_row(host, "UPDATE meta SET value = '{' WHERE key = 'strangers'")
        for _ in range(2):
            await host.start()
            await host.stop()
        assert logs.is_dir()

    run(work())


@pytest.mark.parametrize("how", ["unreadable", "no json", "no record", "no directory"])
def test_ledger_of_a_declared_network_that_cannot_be_read_costs_that_network_only(host: Host, how: str) -> None:
    net = host.path / "run" / "net"
    for name in ("@back", "@left"):
        (net / name).mkdir(parents=True)
    ledger = net / "back.ledger"
    if how == "unreadable":
        ledger.symlink_to(ledger)
    else:
        ledger.write_text({"no json": "{nonsense}\n", "no record": "{}\n"}.get(how, '{"kind": "net.directory"}\n'))

    async def work() -> None:
        manager = await host.start()
        assert (net / "@back").is_dir() and not (net / "@left").exists()
        told = [finding for finding in (await manager.check()).findings if finding.kind == "ledger"]
        assert [(finding.what, "cannot be read" in finding.problem) for finding in told] == [("back", True)]
        await host.stop()

    run(work())


def test_networks_whose_places_cannot_be_listed_keep_no_zoned_from_starting(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    async def work() -> None:
        (host.path / "run" / "net").mkdir(parents=True)
        (host.path / "state" / "logs").mkdir(parents=True)
        with monkeypatch.context() as patches:
            patches.setattr(Path, "iterdir", fail)
            await host.start()
        assert "Input/output error" in caplog.text
        await host.stop()

    run(work())


# -- workloads ---------------------------------------------------------------------------------------------------------


def test_workload_whose_ledger_cannot_be_read_yet_is_settled_later(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And keeps no zoned from starting, nor another zone's workload from being settled."""
    settle = Workloads.settle

    async def short(workloads: Workloads) -> None:
        records = Ledger.records

        def fail(ledger: Ledger) -> Any:
            if ledger.path == web:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(ledger.path))
            return records(ledger)

        with monkeypatch.context() as patches:
            patches.setattr(Ledger, "records", fail)
            await settle(workloads)

    async def failed(manager: Any, name: str) -> None:
        workload = manager.workloads.find(name)
        while workload.info.state is not WorkloadState.FAILED:
            await workload.changes.after(workload.changes.count)

    async def work() -> None:
        nonlocal web
        zones, web = await two_killed(host)
        for zone in zones:
            make_workload(host, zone, f"of-{zone.name}")
        monkeypatch.setattr(Workloads, "settle", short)
        host.clock = FakeClock()
        manager = await host.start()
        await failed(manager, "of-db")
        assert manager.get_workload("of-web").state is WorkloadState.CREATING
        assert "workload of-web is settled later: " in caplog.text
        host.clock.pass_time(LEDGER_AGAIN_S)
        await failed(manager, "of-web")
        await host.stop()

    web = Path()
    run(work())


def test_workload_that_cannot_be_settled_as_nobody_foresaw_costs_no_other(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        (zone, _), ledger = await two_killed(host)
        make_workload(host, zone, "side")
        write(ledger, {"kind": "vbd", "workload": "side"})
        manager = await host.start()
        await manager.wait("web", "ready", 120)
        assert "workload side is left as it is" in caplog.text
        await host.stop()

    run(work())


def test_network_and_reservation_outside_the_pools_are_listed_with_the_others(host: Host) -> None:
    """Of pools that this host had before: they have no addresses, and can be removed."""

    async def work() -> None:
        manager = await host.start()
        for name in ("back", "far"):
            await manager.create_network(name, 1500)
        first, second = [await manager.create_reservation() for _ in range(2)]
        await host.stop()
        change_row(host, "UPDATE networks SET net_index = 300 WHERE name = 'far'")
        change_row(host, "UPDATE reservations SET net_index = 301 WHERE id = ?", second.id)
        manager = await host.start()
        assert [(each.name, bool(each.ipv4)) for each in await manager.networks()] == [("back", True), ("far", False)]
        listed = {each.id: reservation_message(each).ipv4 for each in manager.list_reservations()}
        assert listed == {first.id: f"{first.ipv4}/{first.prefix4}", second.id: ""}
        await manager.remove_network("far")
        await manager.destroy_reservation(second.id)
        await host.stop()

    run(work())


def test_event_that_cannot_be_read_ends_no_reading_of_them(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", until_ready=True))
        await host.stop()
        change_row(host, "UPDATE events SET attributes = '{' WHERE kind = 'zone.ready'")
        manager = await host.start()
        seen = [event async for event in manager.events(from_start=True, follow=False)]
        (damaged,) = [event for event in seen if event.kind == "zone.ready"]
        assert (damaged.zone, damaged.attributes) == ("web", {}) and seen[-1].kind != "zone.ready"
        await host.stop()

    run(work())


def test_declared_ledger_tells_records_that_cannot_be_read_from_none(tmp_path: Path) -> None:
    ledger = DeclaredLedger(tmp_path / "back.ledger")
    assert ledger.records() == []
    ledger.path.write_text('{"kind": "net.netns", "name": "zw-@back"}\n{"kind": "net.dire')
    assert [record["kind"] for record in ledger.records()] == ["net.netns"], "the last one was cut off"
