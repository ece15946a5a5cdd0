"""Who has which block device of this host: no device is two zones' at once, unless both only read it.

A claim is in the ledger of the run that has it, from before its domain is built until its teardown is finished. It is
never made again from what is on the device: a zone writes there what it likes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.bundle.model import Bundle, Volume
from runtime.host.blockdevices import BlockDevice, DeviceUnfit
from runtime.host.daemon.core import Core
from runtime.host.daemon.disks import Devices, all_volumes, subject_of
from runtime.host.daemon.zone import Run, Zone
from runtime.host.ledger import Ledger, Record

log = logging.getLogger(__name__)


async def claim(core: Core, zone: Zone, run: Run, found: dict[str, BlockDevice]) -> None:
    """Make devices, by target, the run's own until it has been torn down. Raises DeviceUnfit.

    Between the comparison and the claim nothing else of the core runs, so that of two zones one comes first.
    """
    _refuse_shared(core, zone, found)
    run.devices = found
    for target, device in found.items():
        await core.thread(record, run.ledger, target, device)


def record(ledger: Ledger, target: str, device: BlockDevice) -> None:
    """Write a claim. Blocking."""
    ledger.record(
        "device",
        target=target,
        path=str(device.path),
        number=list(device.number),
        filesystem=device.filesystem,
        readonly=device.readonly,
    )


def of_records(records: Sequence[Record]) -> dict[str, BlockDevice]:
    """The claims in a ledger, by target, but for those that another version wrote in a way of its own."""
    found = {}
    for each in records:
        if each["kind"] == "device":
            try:
                found[str(each["target"])] = _device_of(each)
            except (KeyError, ValueError, TypeError) as error:
                log.error("a block device's record in a ledger cannot be read, %s: %r", str(each)[:200], error)
    return found


def _device_of(record: Record) -> BlockDevice:
    major, minor = record["number"]
    number = (int(major), int(minor))
    return BlockDevice(Path(str(record["path"])), number, str(record["filesystem"]), bool(record["readonly"]))


def again(bundle: Bundle, records: Sequence[Record]) -> dict[str, BlockDevice]:
    """The claims of a run that a zoned before this one began. Blocking.

    Versions that wrote none in the ledger had looked at the device before they gave it away: which it is stands.
    """
    found = of_records(records)
    for volume in all_volumes(bundle):
        if volume.kind == "block" and volume.target not in found:
            device = _as_it_was_given(volume, subject_of(bundle.name, volume))
            if device is not None:
                found[volume.target] = device
    return found


def _as_it_was_given(volume: Volume, subject: str) -> BlockDevice | None:
    path = Path(os.path.realpath(volume.source))
    try:
        number = os.stat(path).st_rdev
    except OSError as error:
        log.warning("%s: what other zones have is not compared with it: %s", subject, error.strerror)
        return None
    return BlockDevice(path, (os.major(number), os.minor(number)), "", volume.readonly)


def _refuse_shared(core: Core, zone: Zone, found: Devices) -> None:
    """Raises DeviceUnfit where two would have a device that one of them writes to."""
    for target, device in found.items():
        subject = subject_of(zone.name, Volume(target, "block", str(device.path)))
        mine = [(f"zone {zone.name} has it too", other) for where, other in found.items() if where != target]
        for got, had in [*_of_others(core, zone), *mine]:
            if had.number == device.number and not (had.readonly and device.readonly):
                raise DeviceUnfit(
                    subject, expected="a device of its own, unless all that have it only read it", got=got
                )


def _of_others(core: Core, zone: Zone) -> Iterator[tuple[str, BlockDevice]]:
    for other in core.zones.values():
        if other.run is not None and other is not zone:
            yield from ((f"zone {other.name} has it too", device) for device in other.run.devices.values())
    for unread in core.unread.values():
        yield from ((f"zone {unread.name}, {unread.why}, may have it", device) for device in unread.devices.values())
    for left in core.unfinished.values():
        got = f"what is left of a run of zone {left.zone} has it still"
        yield from ((got, device) for device in left.devices.values())
