"""Which disk of a zone is what, and what is told of its volumes and devices. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.bundle.model import Bundle, Volume
from pipeline.oci import Descriptor
from runtime.boot import vbd
from runtime.host.blockdevices import BlockDevice
from runtime.host.daemon.model import DeviceInfo, VolumeInfo

ROOTFS, ADDONS = vbd.NAMES[:2]
NAMES = vbd.NAMES[2:]  # behind rootfs and addons, whether there are any addons or not
INTERFACE = "eth0"
SCRATCH = ""  # stands for its target among those of volumes
MADE = "made"  # the kind of a scratch disk that is this host's own work
DISKS = ("squashfs", "block", MADE)  # the kinds that are one
Devices = Mapping[str, BlockDevice]  # by target


def own_disks(bundle: Bundle) -> dict[str, Descriptor]:
    """The blobs that are disks of every zone, by their names there; those of volumes come behind them."""
    return {ROOTFS: bundle.rootfs} | ({ADDONS: bundle.addons} if bundle.addons else {})


def all_volumes(bundle: Bundle) -> tuple[Volume, ...]:
    """The volumes, and behind them the disk of the writable layer, where there is one."""
    if bundle.scratch:
        return (*bundle.volumes, Volume(SCRATCH, "block", bundle.scratch))
    if bundle.scratch_mib:
        return (*bundle.volumes, Volume(SCRATCH, MADE, size_mib=bundle.scratch_mib))
    return bundle.volumes


def volume_disks(bundle: Bundle) -> dict[str, Volume]:
    """The volumes that are disks, by their names in the zone."""
    return dict(zip(NAMES, (volume for volume in all_volumes(bundle) if volume.kind in DISKS), strict=False))


def directories(bundle: Bundle) -> dict[str, Volume]:
    """The volumes that are directories of this host, by the tags that the zone mounts."""
    return {
        tag_of(number): volume
        for number, volume in enumerate(volume for volume in bundle.volumes if volume.kind == "directory")
    }


def tag_of(number: int) -> str:
    """What a zone mounts a directory of this number by."""
    return f"share{number}"


def subject_of(zone: str, volume: Volume) -> str:
    """What a sentence about a volume begins with."""
    if volume.kind == MADE:
        return f"zone {zone}, scratch of {volume.size_mib} MiB"
    if volume.target == SCRATCH:
        return f"zone {zone}, scratch {volume.source}"[:400]
    return f"zone {zone}, volume {volume.source or volume.kind}:{volume.target}"[:400]


def scratch(bundle: Bundle, devices: Devices) -> tuple[str, ...]:
    """Name and file system of the disk of the writable layer, as the launch data have them."""
    names = [name for name, volume in volume_disks(bundle).items() if volume.target == SCRATCH]
    return (names[0], devices[SCRATCH].filesystem) if names else ()


def volume_infos(bundle: Bundle, devices: Devices) -> tuple[VolumeInfo, ...]:
    """What is told of its volumes. devices: of this host, that a running zone has; only then is their type known."""
    names = {volume.target: name for name, volume in volume_disks(bundle).items()}

    def told(volume: Volume) -> VolumeInfo:
        device = devices.get(volume.target)
        return VolumeInfo(
            source=volume.source or volume.kind,
            target=volume.target,
            type=device.filesystem if device else volume.kind,
            readonly=device.readonly if device else volume.readonly,
            device=names.get(volume.target, ""),
            size_mib=volume.size_mib,
        )

    return tuple(told(volume) for volume in bundle.volumes)


def device_infos(bundle: Bundle, devices: Devices, mac: str) -> tuple[DeviceInfo, ...]:
    """What is told of its devices: disks by their names in the zone, and its interface where it has one now."""
    found = [
        DeviceInfo(name, "disk", str(blob.digest), "rootfs" if name == ROOTFS else "addons", readonly=True)
        for name, blob in own_disks(bundle).items()
    ]
    for name, volume in volume_disks(bundle).items():
        device = devices.get(volume.target)
        source = str(device.path) if device else str(volume.blob.digest) if volume.blob else volume.source
        if volume.kind == MADE:
            source = f"{volume.size_mib} MiB that the host made"
        readonly = device.readonly if device else volume.readonly
        purpose = "scratch" if volume.target == SCRATCH else f"volume {volume.target}"
        found.append(DeviceInfo(name, "disk", source, purpose, readonly=readonly))
    if mac:
        found.append(DeviceInfo(INTERFACE, "network", mac, "network", readonly=False))
    return tuple(found)
