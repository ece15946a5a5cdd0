"""A zoned that ends, is killed, or comes back to another host than it left: nothing is left over, nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import Host, Killed, run
from support.fakeguest import CRASH

from runtime.host.daemon import edge
from runtime.host.daemon.errors import StateDamaged
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import RestartPolicy, State
from runtime.net.declared import DeclaredLedger, ledgers


def by_name(manager: Manager) -> dict[str, Any]:
    return {zone.name: zone for zone in manager.list_zones()}


async def until_ready(manager: Manager, *names: str) -> None:
    for name in names:
        await manager.wait(name, "ready", 120)


@pytest.mark.parametrize("how", ["end", "kill"])
def test_running_zones_are_adopted_and_notice_nothing(host: Host, how: str) -> None:
    async def work() -> None:
        manager = await host.start()
        for name in ("one", "two", "three"):
            await manager.boot(host.request(name, until_ready=True, labels={"a": "b"}))
        before = by_name(manager)
        calls = len(host.xen.calls)
        await (host.stop() if how == "end" else host.kill())
        assert not any(host.guest_ended(zone.domain_uuid) for zone in before.values())
        manager = await host.start()
        await until_ready(manager, "one", "two", "three")
        after = by_name(manager)
        for name, zone in before.items():
            now = after[name]
            assert (now.id, now.domid, now.domain_uuid, now.addresses, now.labels) == (
                zone.id, zone.domid, zone.domain_uuid, zone.addresses, zone.labels,
            )  # fmt: skip
            assert now.started_unix_s == zone.started_unix_s and now.restarts == 0 and now.agent
        assert not [call for call in host.xen.calls[calls:] if "pause" in call or "destroy" in call]
        host.guests[after["one"].domain_uuid].exit("code 5")
        assert (await manager.wait("one")).exit.code == 5  # type: ignore[union-attr]
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


@pytest.mark.parametrize(
    ("told", "reason", "code"),
    [("code 3", 0, 3), ("signal 9", 0, 137), ("", CRASH, 255), ("", 0, 255)],
)
def test_exit_is_found_of_a_zone_that_ended_while_nobody_looked(host: Host, told: str, reason: int, code: int) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        await host.kill()
        guest.exit(told, reason=reason, tell=bool(told))
        manager = await host.start()
        zone = by_name(manager)["web"]
        assert zone.state is State.EXITED and zone.exit.code == code and zone.exit.crashed is (reason == CRASH)
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_zone_whose_policy_says_so_comes_again_if_it_ended_while_nobody_looked(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True, restart=RestartPolicy("always")))
        before = by_name(manager)["web"]
        guest = host.guest()
        await host.kill()
        guest.exit("code 1")
        manager = await host.start()
        await manager.wait("web", "running", 120)
        zone = by_name(manager)["web"]
        assert zone.id == before.id and zone.domain_uuid != before.domain_uuid and zone.restarts == 1
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_domain_that_vanished_is_lost_whatever_the_database_says(host: Host) -> None:
    """A memory snapshot that was restored: same boot id, and the domains of later days are not there."""

    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        domid = by_name(manager)["web"].domid
        await host.kill()
        with host.xen.lock:
            host.xen.release(domid)
        host.xenstored.remove(f"/local/domain/{domid}")
        for ledger in (host.path / "run" / "ledger").glob("*"):
            ledger.unlink()
        host.networks.clear()
        manager = await host.start()
        zone = by_name(manager)["web"]
        assert zone.state is State.EXITED and zone.exit.reason == "lost"
        await host.stop()

    run(work())


@pytest.mark.parametrize(
    ("policy", "stopped", "again"),
    [
        ("no", False, False),
        ("on-failure", False, False),
        ("always", False, True),
        ("always", True, True),
        ("unless-stopped", False, True),
        ("unless-stopped", True, False),
    ],
)
def test_after_a_reboot_zones_come_back_as_their_policy_says(
    host: Host, policy: str, stopped: bool, again: bool
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True, restart=RestartPolicy(policy)))
        if stopped:
            await manager.stop("web")
        await host.kill()
        host.reboot()
        manager = await host.start()
        if again:
            await manager.wait("web", "ready", 120)
        zone = by_name(manager)["web"]
        assert zone.state.up is again
        assert len([domid for domid in host.xen.domains if domid]) == int(again)
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_domid_that_is_another_domains_by_now_is_left_alone(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        domid = by_name(manager)["web"].domid
        await host.kill()
        with host.xen.lock:
            host.xen.release(domid)
            host.xen.next_domid = domid
        stranger = host.foreign_domain()
        assert stranger == domid
        manager = await host.start()
        assert by_name(manager)["web"].exit.reason == "lost"
        assert stranger in host.xen.domains, "a domain of somebody else's was destroyed"
        await host.stop()

    run(work())


def test_domain_with_our_mark_and_no_ledger_is_destroyed_and_a_foreign_one_not(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        ours = by_name(manager)["web"].domid
        await host.kill()
        for ledger in (host.path / "run" / "ledger").glob("*"):
            ledger.unlink()
        stranger = host.foreign_domain()
        manager = await host.start()
        assert ours not in host.xen.domains and stranger in host.xen.domains
        assert by_name(manager)["web"].exit.reason == "lost"
        await host.stop()

    run(work())


def test_network_that_no_ledger_names_is_ended_and_a_declared_one_not(host: Host) -> None:
    async def work() -> None:
        networks = host.path / "run" / "net"
        for name in ("forgotten", "@declared"):
            (networks / name).mkdir(parents=True)
        declared = DeclaredLedger(networks / "declared.ledger")
        declared.record("net.directory", path=str(networks / "@declared"))
        await host.start()
        assert {path.name for path in networks.iterdir()} == {"@declared", "declared.ledger"}
        await host.stop()

    run(work())


def test_declared_network_that_starts_or_ends_while_zoned_looks_is_left_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        networks = host.path / "run" / "net"
        for name in ("forgotten", "lost+found", "@anew"):  # no network can have the name of the second
            (networks / name).mkdir(parents=True)
        late, anew = DeclaredLedger(networks / "late.ledger"), DeclaredLedger(networks / "anew.ledger")
        anew.record("net.directory", path=str(networks / "@anew"))

        def looked(run_directory: Path) -> list[DeclaredLedger]:
            found = ledgers(run_directory)
            if not late.path.exists():
                late.record("net.directory", path=str(networks / "@late"))
                (networks / "@late").mkdir()
            else:
                anew.path.write_text("")  # what was there is taken down, what comes has not begun
            return [*found, DeclaredLedger(networks / "ended.ledger")]

        monkeypatch.setattr(edge, "declared_ledgers", looked)
        await host.start()
        assert {path.name for path in networks.iterdir() if path.is_dir()} == {"@late", "@anew", "lost+found"}
        await host.stop()

    run(work())


def damage(database: Path) -> None:
    """As a disk does it."""
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    database.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)


def test_lost_database_is_made_anew_from_the_ledgers(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True, labels={"tier": "front"}))
        before = by_name(manager)["web"]
        await host.kill()
        damage(host.path / "state" / "zones.sqlite")
        manager = await host.start()
        await until_ready(manager, "web")
        zone = by_name(manager)["web"]
        assert (zone.id, zone.domid, zone.labels) == (before.id, before.domid, {"tier": "front"})
        assert list((host.path / "state").glob("zones.sqlite.damaged-1"))
        kinds = [event.kind async for event in manager.events(from_start=True, follow=False)]
        assert kinds[0] == "host.state-damaged"
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_scratch_disks_of_a_database_that_is_no_more_stay_and_later_ones_do_not(host: Host, how: str) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(until_ready=True, scratch_mib=16))
        await host.stop(end_zones=True)
        database = host.path / "state" / "zones.sqlite"
        if how == "damaged":
            damage(database)
        else:
            database.unlink()
        for _ in range(3):
            manager = await host.start()
            assert manager.list_zones() == [] and host.scratch_of() == {zone.id}
            await host.stop()
            (host.path / "state" / "scratch" / "forgotten").mkdir()

    run(work())


def test_database_that_somebody_has_locked_is_left_as_it_is(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(host.request(until_ready=True, scratch_mib=16))
        await host.stop(end_zones=True)
        database = host.path / "state" / "zones.sqlite"
        monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, timeout=0))
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StateDamaged, match="expected to open it, got database is locked"):
                await host.start()
        manager = await host.start()
        assert [each.id for each in manager.list_zones()] == [zone.id] and host.scratch_of() == {zone.id}
        assert not list(database.parent.glob("*.damaged*"))
        await host.stop()

    run(work())


def test_database_of_a_newer_zonewright_is_refused_and_left_as_it_is(host: Host) -> None:
    async def work() -> None:
        await host.start()
        await host.stop()
        path = host.path / "state" / "zones.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(StateDamaged, match=r"version 99.*of a newer zonewright"):
            await host.start()
        assert not list(path.parent.glob("*.damaged*"))

    run(work())


def test_database_of_an_older_zonewright_is_brought_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime.host.daemon import database

    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        await host.stop()
        newer = "ALTER TABLE zones ADD COLUMN colour TEXT;"
        monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, newer))
        manager = await host.start()
        assert by_name(manager)["web"].state.up
        ((version,),) = await manager.core.database.read("PRAGMA user_version")
        assert version == len(database.MIGRATIONS)
        await host.stop(end_zones=True)

    run(work())


def test_stop_that_was_under_way_is_gone_on_with(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(host.request(until_ready=True))
        guest = host.guest()
        guest.stops_when_asked = False
        stop = asyncio.create_task(manager.stop("web", 600))
        while by_name(manager)["web"].state is not State.STOPPING:
            await asyncio.sleep(0.01)
        stop.cancel()
        await host.kill()
        guest.stops_when_asked = True
        manager = await host.start()
        assert (await manager.wait("web", "exited", 120)).exit.code == 143  # type: ignore[union-attr]
        await host.stop()

    run(work())


# -- a kill at every step ----------------------------------------------------------------------------------------------


async def scenario(host: Host, done: list[str]) -> None:
    """A boot with a scratch disk, a stop, a boot that stays, and one that is removed at its end."""
    manager = await host.start()
    await manager.boot(host.request("one", until_ready=True, scratch_mib=16))
    done.append("one booted")
    await manager.boot(host.request("two", until_ready=True))
    done.append("two booted")
    await manager.stop("one")
    done.append("one stopped")
    await manager.remove("one")
    done.append("one removed")


async def count_steps(host: Host) -> int:
    await scenario(host, [])
    await host.stop(end_zones=True)
    return len(host.steps)


STEPS = 96


def test_kill_points_are_all_of_them(host: Host) -> None:
    """The parametrization below covers the whole scenario."""
    assert run(count_steps(host)) <= STEPS


@pytest.mark.parametrize("first", range(1, STEPS, 8))
def test_kill_at_any_step_leaves_nothing_and_loses_nothing(
    first: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(first, first + 8):
        with monkeypatch.context() as patches:
            host = Host(tmp_path_factory.mktemp("host"), patches)
            try:
                run(killed_at(host, number))
            finally:
                host.close()


async def killed_at(host: Host, number: int) -> None:
    done: list[str] = []
    host.kill_at = number
    work = asyncio.create_task(scenario(host, done))
    while not work.done() and not host.killed.is_set():
        await asyncio.sleep(0.002)
    if not host.killed.is_set():
        await work
        host.kill_at = 0
        await host.stop(end_zones=True)
        return
    step = host.steps[-1]
    await host.kill()
    with contextlib.suppress(Killed, asyncio.CancelledError, Exception):
        await work
    manager = await host.start()
    for zone in list(manager.core.zones.values()):
        if not zone.wanted:  # its stop goes on
            await manager.wait(zone.id, "exited", 120)
    zones = by_name(manager)
    where = f"killed at step {number} ({step}), after {done}"
    if "two booted" in done:
        assert zones["two"].state.up, where
    if "one stopped" in done and "one" in zones:
        assert zones["one"].state is State.EXITED, where
    if "one removed" in done:
        assert "one" not in zones, where
    live = {zone.domid for zone in zones.values() if zone.state.up}
    assert {domid for domid in host.xen.domains if domid} == live, where
    assert len(list((host.path / "run" / "ledger").glob("*"))) == len(live), where
    assert set(host.networks) == {zone.name for zone in zones.values() if zone.state.up}, where
    assert host.scratch_of() <= {zone.id for zone in manager.list_zones() if zone.name == "one"}, where
    for name in ("one", "two"):  # each name can be used, and what is there ended
        if name in zones and zones[name].state.up:
            await manager.stop(name)
        await manager.boot(host.request(name, until_ready=True))
    await host.stop(end_zones=True)
    assert host.leftovers() == [], where
