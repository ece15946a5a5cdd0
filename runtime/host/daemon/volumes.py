"""Volumes of a zone: which disk each becomes, what its container mounts, and who else has the device.

A squashfs file is a blob, as the rootfs is; a block device is this host's own. No device is two zones' at once, unless
both only read it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Bundle, Volume
from runtime.boot.model import Disk
from runtime.host.blockdevices import BlockDevice, DeviceUnfit
from runtime.host.daemon.core import Core
from runtime.host.daemon.disks import NAMES, SCRATCH, Devices, all_volumes, volume_disks
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.zone import Run, Zone

log = logging.getLogger(__name__)

KINDS = ("tmpfs", "squashfs", "block")


def check(bundle: Bundle) -> None:
    """What can be refused without looking at this host. Raises BadRequest."""
    for volume in all_volumes(bundle):
        subject = subject_of(bundle.name, volume)
        if volume.kind not in KINDS:
            raise BadRequest(subject, expected=", ".join(KINDS), got=repr(volume.kind)[:80])
        if volume.kind == "squashfs" and volume.blob is None:
            raise BadRequest(subject, expected="the blob of its squashfs", got="none")
        if volume.kind == "block" and (not volume.source.startswith("/") or "\0" in volume.source):
            raise BadRequest(subject, expected="the path of a device", got=repr(volume.source)[:80])
    count = sum(volume.kind != "tmpfs" for volume in all_volumes(bundle))
    if count > len(NAMES):
        raise BadRequest(f"zone {bundle.name}, volumes", expected=f"at most {len(NAMES)} with a disk", got=str(count))
    targets = [volume.target for volume in all_volumes(bundle)]
    if len(set(targets)) != len(targets):
        raise BadRequest(f"zone {bundle.name}, volumes", expected="each target once", got="one of them twice")


def subject_of(zone: str, volume: Volume) -> str:
    """What a sentence about a volume begins with."""
    if volume.target == SCRATCH:
        return f"zone {zone}, scratch {volume.source}"[:400]
    return f"zone {zone}, volume {volume.source or volume.kind}:{volume.target}"[:400]


def plan_disks(bundle: Bundle, devices: Devices, block_device: Callable[[Any], Path]) -> list[Disk]:
    """The disks of a zone's volumes. block_device: brings a blob behind a device."""
    planned = []
    for vdev, volume in volume_disks(bundle).items():
        if volume.kind == "squashfs":
            planned.append(Disk(vdev, str(block_device(volume.blob))))
        else:
            device = devices[volume.target]
            planned.append(Disk(vdev, str(device.path), readonly=device.readonly))
    return planned


def mounts(bundle: Bundle, devices: Devices) -> list[dict[str, Any]]:
    """What the container's spec says of the volumes. No device and no set-user-id program on one works."""
    vdevs = {volume.target: vdev for vdev, volume in volume_disks(bundle).items()}
    found = []
    for volume in bundle.volumes:
        kind, source, readonly, options = volume.kind, volume.kind, volume.readonly, ["nosuid", "nodev"]
        if volume.kind == "tmpfs":
            options += ["mode=1777", *([f"size={volume.size_mib}m"] if volume.size_mib else [])]
        else:
            source = f"/dev/{vdevs[volume.target]}"
        if volume.kind == "squashfs":
            readonly = True
        elif volume.kind == "block":
            kind, readonly = devices[volume.target].filesystem, devices[volume.target].readonly
        options += ["ro"] if readonly else []
        found.append({"destination": volume.target, "type": kind, "source": source, "options": options})
    return found


async def look(core: Core, bundle: Bundle) -> dict[str, BlockDevice]:
    """The devices of its block volumes, by target. Raises DeviceUnfit."""

    def found() -> dict[str, BlockDevice]:
        wanted = [volume for volume in all_volumes(bundle) if volume.kind == "block"]
        return {volume.target: core.edge.block_device(volume, subject_of(bundle.name, volume)) for volume in wanted}

    devices = await core.thread(found)
    if SCRATCH in devices and devices[SCRATCH].readonly:
        where, got = f"zone {bundle.name}, scratch {bundle.scratch}", devices[SCRATCH].filesystem
        raise DeviceUnfit(where, expected="a file system that can be written to", got=got)
    return devices


async def claim_again(core: Core, zone: Zone, run: Run) -> None:
    """The devices a running zone has, for a zoned that did not give them to it; what became of each is the zone's."""

    def found(volume: Volume) -> BlockDevice | None:
        try:
            return core.edge.block_device(volume, subject_of(zone.name, volume))
        except DeviceUnfit as fault:
            log.warning("%s", fault)
            return None

    for volume in all_volumes(zone.bundle):
        if volume.kind == "block" and (device := await core.thread(found, volume)) is not None:
            run.devices[volume.target] = device


async def claim(core: Core, zone: Zone, run: Run) -> None:
    """Make a zone's devices its own until its run has ended. Raises DeviceUnfit.

    Between the comparison and the claim nothing else of the core runs, so that of two zones one comes first.
    """
    found = await look(core, zone.bundle)
    refuse_shared(core, zone, found)
    run.devices = found


def refuse_shared(core: Core, zone: Zone, found: Devices) -> None:
    """Raises DeviceUnfit where two would have a device that one of them writes to."""
    others = [(other, device) for other in core.zones.values() if other.run for device in other.run.devices.values()]
    others = [(other, device) for other, device in others if other is not zone]
    for target, device in found.items():
        mine = [(zone, other) for where, other in found.items() if where != target]
        for other, had in [*others, *mine]:
            if had.number == device.number and not (had.readonly and device.readonly):
                expected = "a device of its own, unless all that have it only read it"
                where = subject_of(zone.name, Volume(target, "block", str(device.path)))
                raise DeviceUnfit(where, expected=expected, got=f"zone {other.name} has it too")
