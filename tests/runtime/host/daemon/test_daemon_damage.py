"""A database, or a ledger, that is not as it should be: it costs what it is about, is said, and nothing else stands."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import Any

import pytest
from support.daemonworld import FakeClock, Host, run
from support.damage import change_row, ledger_of, make_unreadable, mend, write
from support.hostnetworks import FakeNetwork

from runtime.errors import RuntimeFault
from runtime.host.daemon.database import Database
from runtime.host.daemon.errors import NameTaken, StateDamaged
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import State


def refuse_deletions(monkeypatch: pytest.MonkeyPatch, manager: Manager) -> None:
    """The disk is full whenever something is to be forgotten."""
    commit = manager.core.database._commit

    def fail(statements: Any) -> None:
        if any(sql.startswith("DELETE FROM") for sql, _ in statements):
            raise sqlite3.OperationalError("database or disk is full")
        commit(statements)

    monkeypatch.setattr(manager.core.database, "_commit", fail)


def test_network_and_reservation_whose_removal_cannot_be_written_stay(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.create_network("back", 1500)
        reservation = await manager.create_reservation()
        with monkeypatch.context() as patches:
            refuse_deletions(patches, manager)
            with pytest.raises(StateDamaged, match="expected to write to it, got database or disk is full"):
                await manager.remove_network("back")
            with pytest.raises(StateDamaged, match="expected to write to it, got database or disk is full"):
                await manager.destroy_reservation(reservation.id)
        assert [network.name for network in await manager.networks()] == ["back"]
        assert [kept.id for kept in manager.list_reservations()] == [reservation.id]
        await manager.remove_network("back")
        await manager.destroy_reservation(reservation.id)
        await host.stop()

    run(work())


@pytest.mark.parametrize("what", ["('id', ?)", "excluded.value"], ids=["as it is made", "as it is adopted"])
def test_start_whose_state_cannot_be_written_says_so(host: Host, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    commit = Database._commit

    def fail(database: Database, statements: Any) -> None:
        if any(" meta " in sql and what in sql for sql, _ in statements):
            raise sqlite3.OperationalError("database or disk is full")
        commit(database, statements)

    async def work() -> None:
        with monkeypatch.context() as patches:
            patches.setattr(Database, "_commit", fail)
            with pytest.raises(StateDamaged, match="expected to write to it, got database or disk is full"):
                await host.start()
        await host.kill()
        await host.start()
        await host.stop()

    run(work())


async def retried(host: Host, pause_s: float) -> None:
    """What could not be finished has been tried again."""
    host.clock.pass_time(pause_s)
    while not host.clock.waited_for(pause_s):
        await asyncio.sleep(0)


def test_teardown_that_fails_as_nobody_foresaw_is_gone_on_with(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr("runtime.host.daemon.ending._RETRY_S", 7.0)
        host.clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request())
        host.teardown_fails = RuntimeFault("domain", got="still dying", temporary=True)
        await manager.stop("web", 0.0)
        host.teardown_fails = KeyError("uuid")
        await retried(host, 7.0)
        host.teardown_fails = None
        await retried(host, 7.0)
        assert not manager.core.unfinished and host.leftovers() == []
        await host.stop()

    run(work())


def test_run_whose_network_goes_as_nobody_foresaw_is_torn_down_by_its_ledger(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(network: FakeNetwork) -> None:
        raise KeyError("pid")

    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        monkeypatch.setattr(FakeNetwork, "destroy", fail)
        zone = await manager.stop("web")
        assert zone.state is State.EXITED and host.leftovers() == []
        await manager.boot(host.request())
        await manager.remove("web", force=True)
        assert manager.list_zones() == [] and host.leftovers() == []
        await host.stop()

    run(work())


def test_shared_network_that_goes_as_nobody_foresaw_is_gone_on_with(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr("runtime.host.daemon.ending._RETRY_S", 7.0)
        host.clock = FakeClock()
        manager = await host.start()
        await manager.boot(host.request(network="back"))
        host.segment_stays = KeyError("pid")
        await manager.stop("web", 0.0)
        await retried(host, 7.0)
        host.segment_stays = None
        await retried(host, 7.0)
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_run_that_cannot_be_torn_down_as_nobody_foresaw_keeps_no_zoned_from_starting(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", until_ready=True))
        await manager.boot(host.request("db", until_ready=True))
        guest = host.guest("web")
        await host.kill()
        guest.exit("code 3")
        host.teardown_fails = KeyError("uuid")
        manager = await host.start()
        await manager.wait("db", "ready", 120)
        assert (await manager.get("web")).state is State.EXITED and len(manager.core.unfinished) == 1
        host.teardown_fails = None
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_runs_takes_the_row_of_the_one_that_had_its_name(host: Host) -> None:
    """A database that was restored: it is older than the zone that took the other's place."""

    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await manager.stop("web")
        await host.stop()
        database = host.path / "state" / "zones.sqlite"
        saved = database.read_bytes()
        manager = await host.start()
        now = await manager.boot(host.request(until_ready=True))
        await host.kill()
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        database.write_bytes(saved)
        manager = await host.start()
        await manager.wait("web", "ready", 120)
        kept = await manager.core.database.read("SELECT id, name, wanted FROM zones")
        assert kept == [(now.id, "web", 1)]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def read(host: Host, sql: str, *parameters: object) -> list[Any]:
    """What is in the database while no zoned runs."""
    with contextlib.closing(sqlite3.connect(host.path / "state" / "zones.sqlite")) as database:
        return database.execute(sql, parameters).fetchall()


@pytest.mark.parametrize(
    ("column", "text"),
    [("request", '{"colour": "red"}'), ("request", "{"), ("state", "asleep"), ("exit", "[]"), ("ports", "7"),
     ("request", "[" * 30_000), ("console_tail", "[7]")],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_row_that_cannot_be_read_costs_its_zone_only_and_stays(
    host: Host, column: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        manager = await host.start()
        ended = await manager.boot(host.request("web", until_ready=True, scratch_mib=16))
        await manager.stop("web")
        await manager.boot(host.request("db", until_ready=True))
        await host.stop()
        ((before,),) = read(host, f"SELECT {column} FROM zones WHERE id = ?", ended.id)
        change_row(host, f"UPDATE zones SET {column} = ? WHERE id = ?", text, ended.id)
        manager = await host.start()
        await manager.wait("db", "ready", 120)
        assert [zone.name for zone in manager.list_zones()] == ["db"]
        assert "zone web is left as it is, and not known: its row" in caplog.text
        with pytest.raises(NameTaken, match="one that could not be read"):
            await manager.boot(host.request("web"))
        await host.stop()
        assert host.scratch_of() == {ended.id}
        change_row(host, f"UPDATE zones SET {column} = ? WHERE id = ?", before, ended.id)
        manager = await host.start()
        assert (await manager.get("web")).id == ended.id
        await host.stop(end_zones=True)

    run(work())


def test_zone_that_runs_and_whose_row_cannot_be_read_is_made_anew_from_its_ledger(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        before = await manager.boot(host.request(until_ready=True))
        await host.kill()
        change_row(host, "UPDATE zones SET request = '{}'")
        for _ in range(2):
            manager = await host.start()
            zone = await manager.wait("web", "ready", 120)
            assert (zone.id, zone.domid) == (before.id, before.domid)
            await host.kill()
        await host.start()
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_workload_whose_row_cannot_be_read_keeps_no_zoned_from_starting(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(until_ready=True))
        await host.kill()
        row = ("w", "task", zone.id, zone.domain_uuid, "{", "running", None, "", "", 0.0, 0.0, 0.0)
        change_row(host, f"INSERT INTO workloads VALUES ({', '.join('?' * len(row))})", *row)
        manager = await host.start()
        assert (await manager.wait("web", "ready", 120)).id == zone.id
        assert "workload task is not known: its row" in caplog.text
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("record", [{"kind": "device"}, {"kind": "device", "target": "/data", "number": [7]}])
def test_claim_that_cannot_be_read_costs_no_zone(
    host: Host, record: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        manager = await host.start()
        before = await manager.boot(host.request(until_ready=True))
        ledger = ledger_of(host, "web")
        await host.kill()
        write(ledger, record)
        manager = await host.start()
        assert (await manager.wait("web", "ready", 120)).domid == before.domid
        assert "a block device's record in a ledger cannot be read" in caplog.text
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("exit", [{}, {"exit": "code 3"}, {"exit": {"colour": "red"}}])
def test_exit_that_cannot_be_read_is_one_that_nobody_saw(host: Host, exit: dict[str, Any]) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        ledger = ledger_of(host, "web")
        guest = host.guest()
        await host.kill()
        guest.exit("code 3")
        write(ledger, {"kind": "exit", **exit})
        manager = await host.start()
        zone = await manager.get("web")
        assert zone.state is State.EXITED and zone.exit is not None and zone.exit.code == 3
        await host.stop()
        assert host.leftovers() == []

    run(work())


def test_run_that_cannot_be_taken_as_nobody_foresaw_is_left_as_it_is(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        manager = await host.start()
        before = await manager.boot(host.request("web", until_ready=True))
        await manager.boot(host.request("db", until_ready=True))
        ledger = ledger_of(host, "web")
        await host.kill()
        whole = ledger.read_bytes()
        write(ledger, {"kind": "net.listener", "zone_port": "http"})
        manager = await host.start()
        await manager.wait("db", "ready", 120)
        assert [zone.name for zone in manager.list_zones()] == ["db"] and before.domid in host.xen.domains
        assert "zone web is left as it is, and not known" in caplog.text
        await host.stop()
        ledger.write_bytes(whole)
        manager = await host.start()
        zone = await manager.wait("web", "ready", 120)
        assert (zone.id, zone.domid) == (before.id, before.domid)
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize("damage", ["number", "unreadable"])
def test_ledger_of_a_network_that_cannot_be_read_costs_that_network_only(host: Host, damage: str) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request("web", network="back", until_ready=True))
        before = await manager.boot(host.request("db", until_ready=True))
        await host.kill()
        ledger = host.path / "run" / "networks" / "back.jsonl"
        if damage == "number":
            ledger.write_text(ledger.read_text().replace('"index"', '"number"'))
        else:
            make_unreadable(ledger)
        manager = await host.start()
        assert (await manager.wait("db", "ready", 120)).domid == before.domid
        assert (await manager.wait("web", "exited", 120)).exit.reason == "adoption"  # type: ignore[union-attr]
        await host.stop(end_zones=True)

    run(work())


def test_ledger_that_cannot_be_read_costs_its_zone_only_and_what_runs_goes_on(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        manager = await host.start()
        before = await manager.boot(host.request("web", until_ready=True))
        await manager.boot(host.request("db", until_ready=True))
        ledger = ledger_of(host, "web")
        await host.kill()
        whole = make_unreadable(ledger)
        manager = await host.start()
        await manager.wait("db", "ready", 120)
        assert [zone.name for zone in manager.list_zones()] == ["db"]
        assert before.domid in host.xen.domains and "web" in host.networks
        assert "zone web is left as it is, and not known: its ledger cannot be read" in caplog.text
        other = await manager.boot(host.request("other"))
        assert other.addresses != before.addresses
        await host.stop()
        mend(ledger, whole)
        manager = await host.start()
        zone = await manager.wait("web", "ready", 120)
        assert (zone.id, zone.domid) == (before.id, before.domid)
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())
