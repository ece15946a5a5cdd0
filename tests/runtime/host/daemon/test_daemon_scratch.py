"""Scratch disks a host makes for its zones: made once, there again at each start, gone with the zone."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.daemonworld import Host, run

from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.manager import Manager
from runtime.host.daemon.model import DeviceInfo, State, ZoneInfo
from runtime.host.ledger import LedgerDir
from runtime.host.scratchdisk import ScratchUnfit

Work = Callable[[Manager, ZoneInfo], Awaitable[None]]
OnAZone = Callable[[Work], None]


@pytest.fixture
def on_a_zone(host: Host) -> OnAZone:
    """Does work on a manager and a zone of it with a scratch disk, and ends both."""

    async def whole(work: Work) -> None:
        manager = await host.start()
        await work(manager, await manager.boot(host.request(until_ready=True, scratch_mib=16)))
        await host.stop(end_zones=True)

    return lambda work: run(whole(work))


def disk(host: Host, zone_id: str) -> Path:
    return host.path / "state" / "scratch" / zone_id / "disk"


def backends(host: Host) -> list[tuple[str, str]]:
    """Device and mode of each disk of the zones that can be written to."""
    nodes = host.xenstored.nodes
    homes = [path.removesuffix("/mode") for path in nodes if "/backend/vbd/" in path and path.endswith("/mode")]
    found = [(nodes[f"{home}/params"].value.decode(), nodes[f"{home}/mode"].value.decode()) for home in homes]
    return [(device, mode) for device, mode in found if mode == "w"]


def test_disk_is_made_once_and_goes_with_the_zone(host: Host, on_a_zone: OnAZone) -> None:
    async def work(manager: Manager, zone: ZoneInfo) -> None:
        assert backends(host) == [("/dev/loop8", "w")]
        assert host.backed["/dev/loop8"] == str(disk(host, zone.id))
        scratch = DeviceInfo("xvdc", "disk", "16 MiB that the host made", "scratch", readonly=False)
        assert scratch in zone.devices and zone.volumes == ()
        disk(host, zone.id).write_bytes(b"what the zone wrote")
        await manager.stop("web")
        assert host.leftovers() == [] and host.scratch_of() == {zone.id}
        assert scratch in (await manager.get("web")).devices
        await manager.restart("web")
        assert disk(host, zone.id).read_bytes() == b"what the zone wrote"
        await manager.remove("web", force=True)
        assert host.scratch_of() == set()

    on_a_zone(work)


def test_ledger_names_the_file_before_it_is_made(host: Host, on_a_zone: OnAZone) -> None:
    async def work(manager: Manager, zone: ZoneInfo) -> None:
        (ledger,) = LedgerDir(host.path / "run" / "ledger").all()
        kinds = [(record["kind"], record.get("path", record.get("file"))) for record in ledger.records()]
        path = str(disk(host, zone.id))
        assert ("file", path) in kinds and kinds.index(("file", path)) < kinds.index(("loop", path))
        assert host.steps.index("record file done") < host.steps.index("scratch")

    on_a_zone(work)


def test_host_that_cannot_make_one_says_so_before_there_is_a_zone(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.scratch_fails = ScratchUnfit("zone web, scratch of 16 MiB", expected="mke2fs", got="none")
        with pytest.raises(ScratchUnfit, match="scratch of 16 MiB: expected mke2fs, got none"):
            await manager.boot(host.request(scratch_mib=16))
        assert manager.list_zones() == [] and host.leftovers() == [] and host.scratch_of() == set()
        await manager.boot(host.request())
        await host.stop(end_zones=True)

    run(work())


def test_disk_that_cannot_be_formatted_ends_the_boot_with_nothing_left(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.format_fails = ScratchUnfit("zone web", got="mke2fs failed")
        with pytest.raises(ScratchUnfit, match="mke2fs failed"):
            await manager.boot(host.request(scratch_mib=16))
        (zone,) = manager.list_zones()
        assert zone.state is State.FAILED and host.leftovers() == [] and "unpause" not in host.steps
        await manager.remove("web")
        with pytest.raises(ScratchUnfit):
            await manager.boot(host.request(scratch_mib=16, remove=True))
        assert manager.list_zones() == [] and host.scratch_of() == set()
        await host.stop()

    run(work())


def test_adopted_zone_has_its_disk_and_those_of_forgotten_zones_go(host: Host, on_a_zone: OnAZone) -> None:
    async def work(manager: Manager, zone: ZoneInfo) -> None:
        await host.kill()
        disk(host, "forgotten").parent.mkdir()
        disk(host, "forgotten").touch()
        manager = await host.start()
        assert host.scratch_of() == {zone.id}
        adopted = manager.core.zones[zone.id].run
        assert adopted is not None and str(adopted.devices[""].path) == "/dev/loop8"
        await manager.remove("web", force=True)
        assert host.scratch_of() == set()

    on_a_zone(work)


def test_what_disks_take_is_told_and_freed_by_a_prune(host: Host, on_a_zone: OnAZone) -> None:
    async def work(manager: Manager, zone: ZoneInfo) -> None:
        with open(disk(host, zone.id), "wb") as file:
            file.write(bytes(8192))
            file.truncate(16 << 20)
        rows = {row.what: row for row in await manager.disk_usage()}
        assert (rows["scratch disks"].count, rows["scratch disks"].reclaimable_bytes) == (1, 0)
        assert 8192 <= rows["scratch disks"].size_bytes < 1 << 20, "the file is sparse"
        await manager.stop("web")
        rows = {row.what: row for row in await manager.disk_usage()}
        assert rows["scratch disks"].reclaimable_bytes == rows["scratch disks"].size_bytes
        pruned = await manager.prune(zones=True)
        assert pruned.freed_bytes >= 8192 and host.scratch_of() == set()

    on_a_zone(work)


@pytest.mark.parametrize(
    ("size_mib", "device", "said"),
    [
        (15, "", "scratch: expected 16 to 16777216 MiB, got 15"),
        (-1, "", "got -1"),
        (1 << 30, "", "got 1073741824"),
        (16, "/dev/sdx", "scratch: expected a device or a size, got both"),
    ],
)
def test_disks_that_cannot_be_are_refused(host: Host, size_mib: int, device: str, said: str) -> None:
    async def work() -> None:
        manager = await host.start()
        request = host.request(scratch_mib=size_mib)
        with pytest.raises(BadRequest, match=said):
            await manager.boot(dataclasses.replace(request, bundle=dataclasses.replace(request.bundle, scratch=device)))
        assert manager.list_zones() == []
        await host.stop()

    run(work())
