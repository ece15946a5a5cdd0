"""Zones that cannot be read: what they have is theirs until somebody removes them, and they can be removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.daemonworld import Host, run
from support.damage import change_row, ledger_of, make_unreadable, mend

from pipeline.oci import Digest
from runtime.host.daemon import blobs
from runtime.host.daemon.errors import StateDamaged, WrongState
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import ZoneInfo

OWN = {Digest.of(data).hex for data in (b"070701" * 1001, b"rootfs")}


async def unread_zone(host: Host, assignment: str) -> tuple[Manager, str]:
    """A zoned that begins with a zone that has ended and whose row was changed."""
    manager = await host.start()
    before = await manager.boot(host.request("web", until_ready=True, scratch_mib=16))
    await host.stop(end_zones=True)
    change_row(host, f"UPDATE zones SET {assignment}")
    return await host.start(), before.id


async def killed(host: Host) -> tuple[ZoneInfo, Path]:
    """A zone that runs on without its zoned, and the ledger of its run."""
    manager = await host.start()
    before = await manager.boot(host.request("web", until_ready=True))
    ledger = ledger_of(host, "web")
    await host.kill()
    return before, ledger


def stored(host: Host) -> set[str]:
    return {path.name for path in (host.path / "store" / "blobs" / "sha256").iterdir()}


@pytest.mark.parametrize(
    "assignment", ["state = 'asleep'", "exit = '[]'", 'request = \'{"of": "another", \' || substr(request, 2)']
)
def test_blobs_of_a_zone_whose_row_cannot_be_read_stay(host: Host, assignment: str) -> None:
    async def work() -> None:
        manager, _ = await unread_zone(host, assignment)
        assert (await manager.prune(zones=True, blobs=True)).removed == () and stored(host) >= OWN
        await manager.remove("web", force=True)
        assert blobs.needed(manager.core) == set()
        await host.stop()

    run(work())


def test_reservation_of_a_zone_whose_row_cannot_be_read_stays(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        reservation = (await manager.create_reservation()).id
        await manager.boot(host.request("web", reservation=reservation))
        await host.stop(end_zones=True)
        change_row(host, "UPDATE zones SET state = 'asleep'")
        manager = await host.start()
        with pytest.raises(WrongState, match="zone web has its addresses"):
            await manager.destroy_reservation(reservation)
        await manager.remove("web", force=True)
        await manager.destroy_reservation(reservation)
        await host.stop()

    run(work())


@pytest.mark.parametrize("request_text", ["{", '{"colour": "red"}'])
def test_no_blob_is_removed_while_nobody_knows_what_a_zone_needs(host: Host, request_text: str) -> None:
    async def work() -> None:
        manager, _ = await unread_zone(host, f"request = '{request_text}'")
        for dry_run in (True, False):
            with pytest.raises(StateDamaged, match=r"got zone web, its row.*zone rm --force web forgets it"):
                await manager.prune(zones=True, blobs=True, dry_run=dry_run)
        assert stored(host) >= OWN
        assert {row.what: row.reclaimable_bytes for row in await manager.disk_usage()}["blobs"] == 0
        await host.stop()

    run(work())


def test_zone_that_cannot_be_read_is_removed_by_force_with_all_it_left(host: Host) -> None:
    async def work() -> None:
        manager, zone_id = await unread_zone(host, "request = '{'")
        left = [host.path / "state" / kind / zone_id for kind in ("logs", "scratch")]
        for ask in (manager.get, manager.remove, manager.restart):
            for ref in ("web", zone_id):
                with pytest.raises(StateDamaged, match=r"zone web: its row in the database .*rm --force"):
                    await ask(ref)
        assert all(path.is_dir() for path in left)
        assert (await manager.remove("web", force=True)).id == zone_id
        assert not any(path.exists() for path in left)
        events = [event async for event in manager.events(from_start=True, follow=False)]
        assert (events[-1].kind, events[-1].zone_id) == ("zone.removed", zone_id)
        await manager.boot(host.request("web"))
        await host.stop(end_zones=True)
        assert [zone.name for zone in (await host.start()).list_zones()] == ["web"]
        await host.stop()

    run(work())


def test_zone_of_which_neither_row_nor_ledger_can_be_read_keeps_its_network(host: Host) -> None:
    async def work() -> None:
        before, ledger = await killed(host)
        make_unreadable(ledger)
        change_row(host, "UPDATE zones SET state = 'asleep'")
        manager = await host.start()
        other = await manager.boot(host.request("other"))
        assert other.addresses != before.addresses and before.domid in host.xen.domains
        with pytest.raises(WrongState, match="one that may run: its row"):
            await manager.remove("web", force=True)
        await host.stop()

    run(work())


def test_zone_that_cannot_be_read_is_not_removed_while_it_may_run(host: Host) -> None:
    async def work() -> None:
        before, ledger = await killed(host)
        whole = make_unreadable(ledger)
        manager = await host.start()
        with pytest.raises(WrongState, match="one that may run: its ledger cannot be read"):
            await manager.remove("web", force=True)
        assert (await manager.prune(zones=True, blobs=True)).removed == () and stored(host) >= OWN
        await host.stop()
        mend(ledger, whole)
        assert (await (await host.start()).wait("web", "ready", 20)).domid == before.domid
        await host.stop(end_zones=True)

    run(work())
