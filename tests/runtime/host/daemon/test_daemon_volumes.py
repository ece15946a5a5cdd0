"""Volumes: the disks they become, who may have a device, and that all is given back however a zone ends."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
from support.daemonworld import Host, run

from pipeline.bundle.model import Volume
from pipeline.oci import Descriptor, Digest
from runtime.errors import RuntimeFault
from runtime.host import ledger
from runtime.host.blockdevices import BlockDevice, DeviceUnfit
from runtime.host.check.expected import read_ledgers
from runtime.host.daemon import claims
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.model import BootRequest, DeviceInfo, State, VolumeInfo
from runtime.host.sources import BlobUnreachable
from runtime.init.container import mountspec

DATA = b"hsqs" + bytes(4092)
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))
FILE = Volume("/data", "squashfs", "data.squashfs", readonly=True, blob=BLOB)
DISK = Volume("/disk", "block", "/dev/sdx")


@pytest.fixture(autouse=True)
def devices(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, BlockDevice]:
    """The block devices of this host, by their paths."""
    found = {"/dev/sdx": BlockDevice(Path("/dev/sdx"), (8, 16), "ext4", False)}

    def block_device(edge: Any, volume: Volume, subject: str) -> BlockDevice:
        if volume.source not in found:
            raise DeviceUnfit(subject, got="No such file or directory")
        device = found[volume.source]
        return dataclasses.replace(device, readonly=device.readonly or volume.readonly)

    monkeypatch.setattr(Edge, "block_device", block_device)
    (host.path / "store" / "blobs" / "sha256" / BLOB.digest.hex).write_bytes(DATA)
    return found


def wanted(host: Host, *volumes: Volume, name: str = "web", **keywords: Any) -> BootRequest:
    request = host.request(name, until_ready=True, **keywords)
    return dataclasses.replace(request, bundle=dataclasses.replace(request.bundle, volumes=volumes))


def disks(host: Host) -> dict[str, tuple[str, str]]:
    """What the zones' back ends say: name in the zone -> device, mode."""
    nodes = host.xenstored.nodes
    homes = [path.removesuffix("/dev") for path in nodes if "/backend/vbd/" in path and path.endswith("/dev")]

    def read(path: str) -> str:
        return nodes[path].value.decode()

    return {read(f"{home}/dev"): (read(f"{home}/params"), read(f"{home}/mode")) for home in homes}


def test_file_and_device_are_disks_and_all_is_given_back(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(wanted(host, Volume("/tmp"), FILE, DISK))
        assert disks(host)["xvdc"] == ("/dev/loop7", "r") and disks(host)["xvdd"] == ("/dev/sdx", "w")
        (domain,) = read_ledgers(ledger.LedgerDir(host.path / "run" / "ledger").all()).domains.values()
        assert domain.disks["xvdc"] == "/dev/loop7" and domain.disks["xvdd"] == "/dev/sdx"
        assert read_ledgers(ledger.LedgerDir(host.path / "run" / "ledger").all()).loops
        await manager.stop("web")
        assert host.leftovers() == [] and disks(host) == {}
        await host.stop()

    run(work())


def test_volumes_and_devices_are_told_of_a_zone_that_runs_and_of_one_that_has_ended(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(
            wanted(host, Volume("/tmp", size_mib=8), FILE, dataclasses.replace(DISK, readonly=True))
        )
        memory = VolumeInfo("tmpfs", "/tmp", "tmpfs", False, size_mib=8)
        file = VolumeInfo("data.squashfs", "/data", "squashfs", True, "xvdc")
        disk = VolumeInfo("/dev/sdx", "/disk", "ext4", True, "xvdd")
        assert zone.volumes == (memory, file, disk)
        volumes = [
            DeviceInfo("xvdc", "disk", str(BLOB.digest), "volume /data", True),
            DeviceInfo("xvdd", "disk", "/dev/sdx", "volume /disk", True),
        ]
        own, interface = zone.devices[: -len(volumes) - 1], zone.devices[-1]
        assert [(device.name, device.purpose, device.readonly) for device in own][:1] == [("xvda", "rootfs", True)]
        assert list(zone.devices[len(own) : -1]) == volumes
        assert (interface.name, interface.kind, interface.source) == ("eth0", "network", zone.mac)
        await manager.stop("web")
        ended = await manager.get("web")
        assert ended.volumes == (memory, file, dataclasses.replace(disk, type="block"))
        assert list(ended.devices) == [*own, *volumes], "and no interface, as it has none now"
        await host.stop()

    run(work())


def test_boot_that_fails_midway_gives_back_device_and_loop(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        host.network_fails = DeviceUnfit("the network", got="broken")
        with pytest.raises(DeviceUnfit, match="the network"):
            await manager.boot(wanted(host, FILE, DISK))
        assert host.leftovers() == []
        host.network_fails = None
        await manager.boot(wanted(host, DISK, name="other"))
        await host.stop(end_zones=True)

    run(work())


def test_missing_file_and_missing_device_are_told_before_there_is_a_domain(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        gone = dataclasses.replace(FILE, blob=dataclasses.replace(BLOB, digest=Digest.of(b"other")))
        with pytest.raises(BlobUnreachable, match="expected it in a store or on a disk of this host"):
            await manager.boot(wanted(host, gone))
        with pytest.raises(DeviceUnfit, match="zone web, volume /dev/none:/disk: No such file"):
            await manager.boot(wanted(host, dataclasses.replace(DISK, source="/dev/none")))
        assert "unpause" not in host.steps and host.leftovers() == []
        await host.stop()

    run(work())


def test_device_is_one_zones_unless_all_only_read_it(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(wanted(host, DISK))
        reader = dataclasses.replace(DISK, readonly=True)
        for volume in (DISK, reader):
            with pytest.raises(
                DeviceUnfit, match=r"volume /dev/sdx:/disk: expected a device of its own.*zone web has it"
            ):
                await manager.boot(wanted(host, volume, name="other"))
        await manager.stop("web")
        await manager.boot(wanted(host, reader))
        await manager.boot(wanted(host, reader, name="other"))
        assert sorted(zone.name for zone in manager.list_zones(all=False)) == ["other", "web"]
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize("damage", ["record", "whole"])
def test_device_of_a_zone_whose_run_cannot_be_taken_over_is_no_others(
    host: Host, damage: str, devices: dict[str, BlockDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_as_it_was_given", lambda volume, subject: devices[volume.source])

    async def work() -> None:
        manager = await host.start()
        before = await manager.boot(wanted(host, DISK))
        await host.kill()
        path = host.path / "run" / "ledger" / f"{before.domain_uuid}.jsonl"
        if damage == "record":
            with path.open("a") as file:
                file.write('\n{"kind": "net.listener", "zone_port": "http"}\n')
        else:
            path.unlink()
            path.mkdir()
        manager = await host.start()
        with pytest.raises(DeviceUnfit, match=r"got zone web, its .* may have it"):
            await manager.boot(wanted(host, DISK, name="other"))
        await host.stop()

    run(work())


def test_scratch_device_is_a_disk_no_other_zone_gets(host: Host, devices: dict[str, BlockDevice]) -> None:
    async def work() -> None:
        manager = await host.start()

        def scratched(name: str, *volumes: Volume) -> BootRequest:
            request = wanted(host, *volumes, name=name)
            return dataclasses.replace(request, bundle=dataclasses.replace(request.bundle, scratch="/dev/sdx"))

        zone = await manager.boot(scratched("web", FILE))
        assert disks(host)["xvdd"] == ("/dev/sdx", "w")
        assert [(one.name, one.purpose) for one in zone.devices if one.source == "/dev/sdx"] == [("xvdd", "scratch")]
        assert [volume.target for volume in zone.volumes] == ["/data"]
        with pytest.raises(DeviceUnfit, match="zone other, scratch /dev/sdx: expected a device of its own"):
            await manager.boot(scratched("other"))
        await manager.stop("web")
        with pytest.raises(DeviceUnfit, match="got zone other has it too"):
            await manager.boot(scratched("other", DISK))
        devices["/dev/sdx"] = dataclasses.replace(devices["/dev/sdx"], filesystem="erofs", readonly=True)
        with pytest.raises(
            DeviceUnfit, match="scratch /dev/sdx: expected a file system that can be written to, got erofs"
        ):
            await manager.boot(scratched("other"))
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_file_system_the_zones_kernel_has_not_is_refused_before_there_is_a_zone(
    host: Host, devices: dict[str, BlockDevice]
) -> None:
    devices["/dev/sdx"] = dataclasses.replace(devices["/dev/sdx"], filesystem="xfs")

    async def work() -> None:
        manager = await host.start()

        def with_kernel(*filesystems: str, volume: Volume | None = DISK, **changes: Any) -> BootRequest:
            request = wanted(host, *([volume] if volume else []))
            bundle = dataclasses.replace(request.bundle, filesystems=filesystems, **changes)
            return dataclasses.replace(request, bundle=bundle)

        said = r"/disk: expected a file system of the zone's kernel \(ext4, squashfs\), got xfs, which is CONFIG_XFS_FS"
        with pytest.raises(DeviceUnfit, match=said + r" .*kernel_options\.modules = \[.xfs.\] loads it"):
            await manager.boot(with_kernel("ext4", "squashfs"))
        with pytest.raises(DeviceUnfit, match=r"scratch of 16 MiB: expected .* got ext4, which is CONFIG_EXT4_FS"):
            await manager.boot(with_kernel("squashfs", "xfs", volume=None, scratch_mib=16))
        with pytest.raises(DeviceUnfit, match=r"scratch /dev/sdx: expected .* got xfs, which is CONFIG_XFS_FS"):
            await manager.boot(with_kernel("squashfs", "ext4", volume=None, scratch="/dev/sdx"))
        with pytest.raises(DeviceUnfit, match="got squashfs, which is CONFIG_SQUASHFS"):
            await manager.boot(with_kernel("ext4", volume=FILE))
        assert manager.list_zones() == [] and host.leftovers() == []
        for known in (("squashfs", "xfs"), ()):
            await manager.boot(with_kernel(*known))
            await manager.remove("web", force=True)
        await host.stop()

    run(work())


def test_two_volumes_of_a_zone_are_not_one_device_either(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(DeviceUnfit, match="zone web has it too"):
            await manager.boot(wanted(host, DISK, dataclasses.replace(DISK, target="/again", readonly=True)))
        assert host.leftovers() == []
        await host.stop()

    run(work())


def test_of_two_at_once_one_gets_the_device(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        boots = [manager.boot(wanted(host, DISK, name=name)) for name in ("one", "two")]
        results = await asyncio.gather(*boots, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["DeviceUnfit", "ZoneInfo"]
        await host.stop(end_zones=True)

    run(work())


def test_adopted_zone_keeps_its_device(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(wanted(host, DISK, FILE))
        await host.kill()
        manager = await host.start()
        assert (await manager.get("web")).state is State.READY
        with pytest.raises(DeviceUnfit, match="zone web has it too"):
            await manager.boot(wanted(host, DISK, name="other"))
        await manager.stop("web")
        await manager.boot(wanted(host, DISK, name="other"))
        await host.stop(end_zones=True)

    run(work())


def test_zone_keeps_its_device_whatever_it_wrote_there_while_zoned_was_away(
    host: Host, devices: dict[str, BlockDevice]
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(wanted(host, DISK))
        await host.kill()
        there = devices.pop("/dev/sdx")  # a look at it fails, as it does where a zone has wiped its head
        manager = await host.start()
        devices["/dev/sdx"] = there
        assert (await manager.get("web")).volumes[0].type == "ext4"
        with pytest.raises(DeviceUnfit, match="zone web has it too"):
            await manager.boot(wanted(host, DISK, name="other"))
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_zone_of_a_zoned_that_wrote_no_claims_keeps_its_device(host: Host, devices: dict[str, BlockDevice]) -> None:
    there = os.stat("/dev/null").st_rdev
    devices["/dev/null"] = BlockDevice(Path("/dev/null"), (os.major(there), os.minor(there)), "ext4", False)
    null = dataclasses.replace(DISK, source="/dev/null")

    async def work() -> None:
        manager = await host.start()
        await manager.boot(wanted(host, null))
        await host.kill()
        (path,) = (host.path / "run" / "ledger").glob("*.jsonl")
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line for line in lines if '"kind":"device"' not in line) + "\n")
        manager = await host.start()
        with pytest.raises(DeviceUnfit, match="zone web has it too"):
            await manager.boot(wanted(host, null, name="other"))
        await host.stop(end_zones=True)

    run(work())


def test_device_is_free_once_what_had_it_is_torn_down_and_not_before(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.boot(wanted(host, DISK))
        host.teardown_fails = RuntimeFault("domain", got="still dying", temporary=True)
        await manager.remove("web", force=True)
        held = "what is left of a run of zone web has it still"
        with pytest.raises(DeviceUnfit, match=held):
            await manager.boot(wanted(host, DISK, name="other"))
        await host.stop()
        manager = await host.start()
        with pytest.raises(DeviceUnfit, match=held):
            await manager.boot(wanted(host, DISK, name="other"))
        await host.stop()
        host.teardown_fails = None
        manager = await host.start()
        await manager.boot(wanted(host, DISK, name="other"))
        await host.stop(end_zones=True)
        assert host.leftovers() == []

    run(work())


def test_blob_of_a_volume_is_needed_as_long_as_its_zone_is_known(host: Host) -> None:
    async def work() -> None:
        manager = await host.start()
        zone = await manager.boot(wanted(host, FILE))
        assert str(BLOB.digest) in zone.blobs
        await host.stop(end_zones=True)

    run(work())


@pytest.mark.parametrize(
    ("volumes", "said"),
    [
        ((Volume("/x", "nfs", "server"),), "expected tmpfs, squashfs, block, directory, got 'nfs'"),
        ((dataclasses.replace(FILE, blob=None),), "expected the blob of its squashfs, got none"),
        ((dataclasses.replace(DISK, source="sdx"),), "expected the path of a device"),
        ((dataclasses.replace(DISK, source="/dev/\0"),), "expected the path of a device"),
        (tuple(Volume(f"/{n}", "block", "/dev/sdx") for n in range(15)), "expected at most 14 with a disk, got 15"),
        ((FILE, Volume("/data")), "expected each target once"),
    ],
)
def test_volumes_that_cannot_be_are_refused(host: Host, volumes: tuple[Volume, ...], said: str) -> None:
    async def work() -> None:
        manager = await host.start()
        with pytest.raises(BadRequest, match=said):
            await manager.boot(wanted(host, *volumes))
        assert manager.list_zones() == []
        await host.stop()

    run(work())


def test_mounts_are_what_the_zones_container_runtime_takes(host: Host) -> None:
    from runtime.host.daemon.volumes import mounts

    reader = dataclasses.replace(DISK, target="/reader", readonly=True)
    bundle = wanted(host, Volume("/tmp", size_mib=8), DISK, FILE, reader).bundle
    device = BlockDevice(Path("/dev/sdx"), (8, 16), "ext4", False)
    made = mounts(bundle, {"/disk": device, "/reader": dataclasses.replace(device, readonly=True)})
    assert [(mount["destination"], mount["type"], mount["source"]) for mount in made] == [
        ("/tmp", "tmpfs", "tmpfs"),
        ("/disk", "ext4", "/dev/xvdc"),
        ("/data", "squashfs", "/dev/xvdd"),
        ("/reader", "ext4", "/dev/xvde"),
    ]
    assert ["ro" in mount["options"] for mount in made] == [False, False, True, True]
    for mount in made:
        assert {"nosuid", "nodev"} <= set(mount["options"]) and mountspec.check(mount, "mounts")
