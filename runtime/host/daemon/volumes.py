"""Volumes of a zone: which disk each becomes, and what its container mounts.

A squashfs file is a blob, as the rootfs is; a block device is this host's own (`claims.py`: whose else).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Bundle, Volume
from pipeline.bundle.scratch import LEAST_MIB, MOST_MIB
from pipeline.kernelconfig import OPTIONS
from runtime.boot import vbd
from runtime.boot.model import Disk
from runtime.host.blockdevices import BlockDevice, DeviceUnfit
from runtime.host.daemon import claims
from runtime.host.daemon.core import Core
from runtime.host.daemon.disks import (
    DISKS,
    MADE,
    NAMES,
    SCRATCH,
    Devices,
    all_volumes,
    directories,
    subject_of,
    volume_disks,
)
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.zone import Run, Zone
from runtime.host.scratchdisk import FILESYSTEM, NAME

KINDS = ("tmpfs", "squashfs", "block", "directory")
_NOUNS = {"block": "device", "directory": "directory"}
MOST_DIRECTORIES = 8  # each has a process of its own
# Nothing is remembered but pages that a process of the zone has mapped: the host may change the files.
_9P = ["trans=xen", "version=9p2000.L", "msize=131072", "cache=mmap"]


def check(bundle: Bundle) -> None:
    """What can be refused without looking at this host. Raises BadRequest."""
    if bundle.scratch_mib:
        _check_made(bundle)
    for volume in all_volumes(bundle):
        subject = subject_of(bundle.name, volume)
        if volume.kind not in KINDS and volume.target != SCRATCH:
            raise BadRequest(subject, expected=", ".join(KINDS), got=repr(volume.kind)[:80])
        if volume.kind == "squashfs" and volume.blob is None:
            raise BadRequest(subject, expected="the blob of its squashfs", got="none")
        if volume.kind in ("block", "directory") and (not volume.source.startswith("/") or "\0" in volume.source):
            raise BadRequest(subject, expected=f"the path of a {_NOUNS[volume.kind]}", got=repr(volume.source)[:80])
    shared = len(directories(bundle))
    if shared > MOST_DIRECTORIES:
        raise BadRequest(
            f"zone {bundle.name}, volumes", expected=f"at most {MOST_DIRECTORIES} directories", got=str(shared)
        )
    count = sum(volume.kind in DISKS for volume in all_volumes(bundle))
    if count > len(NAMES):
        raise BadRequest(f"zone {bundle.name}, volumes", expected=f"at most {len(NAMES)} with a disk", got=str(count))
    targets = [volume.target for volume in all_volumes(bundle)]
    if len(set(targets)) != len(targets):
        raise BadRequest(f"zone {bundle.name}, volumes", expected="each target once", got="one of them twice")


def _check_made(bundle: Bundle) -> None:
    subject = f"zone {bundle.name}, scratch"
    if bundle.scratch:
        raise BadRequest(subject, expected="a device or a size", got="both")
    if not LEAST_MIB <= bundle.scratch_mib <= MOST_MIB:
        raise BadRequest(subject, expected=f"{LEAST_MIB} to {MOST_MIB} MiB", got=str(bundle.scratch_mib))


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
    tags = {volume.target: tag for tag, volume in directories(bundle).items()}
    found = []
    for volume in bundle.volumes:
        kind, source, readonly, options = volume.kind, volume.kind, volume.readonly, ["nosuid", "nodev"]
        if volume.kind == "tmpfs":
            options += ["mode=1777", *([f"size={volume.size_mib}m"] if volume.size_mib else [])]
        elif volume.kind == "directory":
            found.append(directory_mount(volume, tags[volume.target]))
            continue
        else:
            source = f"/dev/{vdevs[volume.target]}"
        if volume.kind == "squashfs":
            readonly = True
        elif volume.kind == "block":
            kind, readonly = devices[volume.target].filesystem, devices[volume.target].readonly
        options += ["ro"] if readonly else []
        found.append({"destination": volume.target, "type": kind, "source": source, "options": options})
    return found


def directory_mount(volume: Volume, tag: str) -> dict[str, Any]:
    """What a container's spec says of a directory of this host."""
    options = [*_9P, "nosuid", "nodev", *(["ro"] if volume.readonly else [])]
    return {"destination": volume.target, "type": "9p", "source": tag, "options": options}


async def look(core: Core, bundle: Bundle) -> dict[str, BlockDevice]:
    """The devices of its block volumes, by target, which its kernel can mount. Raises DeviceUnfit."""

    def found() -> dict[str, BlockDevice]:
        for volume in directories(bundle).values():
            core.edge.check_directory(volume, subject_of(bundle.name, volume))
        wanted = [volume for volume in all_volumes(bundle) if volume.kind == "block"]
        return {volume.target: core.edge.block_device(volume, subject_of(bundle.name, volume)) for volume in wanted}

    devices = await core.thread(found)
    _refuse_unmountable(bundle, devices)
    if SCRATCH in devices and devices[SCRATCH].readonly:
        where, got = f"zone {bundle.name}, scratch {bundle.scratch}", devices[SCRATCH].filesystem
        raise DeviceUnfit(where, expected="a file system that can be written to", got=got)
    return devices


def _refuse_unmountable(bundle: Bundle, devices: Devices) -> None:
    """Raises DeviceUnfit for a file system that the zone's kernel is known not to have."""
    for volume in all_volumes(bundle):
        kind = devices[volume.target].filesystem if volume.kind == "block" else volume.kind
        kind = {MADE: FILESYSTEM, "directory": "9p"}.get(kind, kind)
        if kind != "tmpfs":
            refuse_unmountable(subject_of(bundle.name, volume), kind, bundle.filesystems)


def refuse_unmountable(subject: str, kind: str, filesystems: Collection[str]) -> None:
    """Raises DeviceUnfit for a file system that is none of a kernel's. filesystems: empty where they are not known."""
    if filesystems and kind not in filesystems:
        raise DeviceUnfit(
            subject,
            expected=f"a file system of the zone's kernel ({', '.join(filesystems)})",
            got=f"{kind}, which is {OPTIONS[kind]}",
            hint=f"where the kernel has it as a module, kernel_options.modules = {_modules_of(kind)} loads it",
        )


def _modules_of(kind: str) -> str:
    return '["9pnet_xen", "9p"]' if kind == "9p" else f'["{kind}"]'


async def look_for_room(core: Core, bundle: Bundle) -> None:
    """Could this host make the scratch disk that a new zone wants? Raises ScratchUnfit."""
    for volume in all_volumes(bundle):
        if volume.kind == MADE:
            where = core.settings.state_dir
            await core.thread(core.edge.check_scratch, where, volume.size_mib, subject_of(bundle.name, volume))


def make_scratch(core: Core, zone: Zone, run: Run) -> None:
    """The scratch disk of a zone that wants one made, and the loop device that its run has it by. Blocking.

    The file outlives the run, and goes with the zone. Raises ScratchUnfit, LoopFault.
    """
    for volume in all_volumes(zone.bundle):
        if volume.kind == MADE:
            path = core.scratch_of(zone) / NAME
            run.ledger.record("file", path=str(path))
            core.edge.make_scratch(path, volume.size_mib, subject_of(zone.name, volume))
            loop = core.edge.loop(path, run.ledger.record, readonly=False)
            run.loops.append(loop)
            device = BlockDevice(loop.device, vbd.device_number(str(loop.device)), FILESYSTEM, readonly=False)
            claims.record(run.ledger, SCRATCH, device)
            run.devices[SCRATCH] = device
