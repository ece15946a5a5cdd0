"""The directories of this host that a run has: of its zone's volumes from the start, of workloads while they are there.

A number, and so a tag, is used once in a run: a guest that is slow to notice that a device has gone would take the next
of its number for it (xenbus_dev_changed of Linux looks at names).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Volume
from runtime.host.daemon import plugged, volumes
from runtime.host.daemon.core import Core
from runtime.host.daemon.disks import directories, tag_of
from runtime.host.daemon.model import WorkloadInfo
from runtime.host.daemon.zone import Run, Zone
from runtime.host.ledger import Record
from runtime.share.backend import Share
from runtime.share.model import ShareSpec

LOG = "share.log"  # beside the zone's logs: what the processes that serve it say
CONNECT_S = 60.0  # a share's process takes its time on a loaded host, see runtime/share/backend.py
_LOOK_AGAIN_S = 0.1


def begin(core: Core, zone: Zone, run: Run, *, adopted: bool = False) -> None:
    """Serve them to the run's domain. Blocking. Raises XenstoreFault."""
    wanted = [
        ShareSpec(number, Path(volume.source), volume.readonly)
        for number, volume in enumerate(directories(zone.bundle).values())
    ]
    if adopted:
        wanted += [_spec(record) for record in plugged.current("share", run.ledger.records())]
    for spec in wanted:
        _follow(core, zone, run, spec, adopted=adopted)


async def look(core: Core, zone: Zone, workload: str, wanted: Sequence[Volume]) -> None:
    """Could a workload of this zone have these? Raises ShareUnfit, DeviceUnfit."""
    for volume in wanted:
        subject = f"workload {workload}, directory {volume.source}:{volume.target}"[:400]
        volumes.refuse_unmountable(subject, "9p", zone.bundle.filesystems)
        await core.thread(core.edge.check_directory, volume, subject)


def plug(core: Core, zone: Zone, run: Run, workload: str, wanted: Sequence[Volume]) -> dict[str, Share]:
    """Give the run's domain a workload's directories, by their tags. Blocking. run.plugging is held.

    Where it fails, what has been given is in the ledger, as the workload's.
    Raises:  DomainGone, XenstoreFault.
    """
    assert run.domain is not None
    begun: dict[str, Share] = {}
    for number, volume in enumerate(wanted, _free_number(zone, run)):
        tag = tag_of(number)
        of_whom: dict[str, Any] = {"workload": workload, "path": volume.source, "readonly": volume.readonly}
        core.edge.plug_share(run.domain, tag, number, functools.partial(run.ledger.record, **of_whom))
        begun[tag] = _follow(core, zone, run, ShareSpec(number, Path(volume.source), volume.readonly))
    return begun


async def connected(core: Core, begun: Collection[Share]) -> None:
    """Until the zone can mount them; no thread waits for it. Raises DeviceFault, DomainGone."""
    deadline = core.clock.monotonic() + CONNECT_S
    while left := await core.thread(lambda: [share for share in begun if not share.connected()]):
        if core.clock.monotonic() > deadline:
            raise left[0].not_connected(f"nothing of it within {CONNECT_S:g} s")
        await core.clock.sleep(_LOOK_AGAIN_S)


def unplug(core: Core, zone: Zone, run: Run, workload: WorkloadInfo) -> None:
    """Take back what the ledger says a workload has, which has it mounted no more. Blocking. Raises XenstoreFault."""
    assert run.domain is not None
    for record in plugged.held("share", run.ledger.records(), workload):
        spec = _spec(record)
        # Of one that nobody follows any more, as zoned is about to end, the process is in the ledger.
        (run.shares.take(spec.number) or _serve(core, zone, run, spec, adopted=True)).close()
        core.edge.unplug_share(run.domain, str(record["tag"]), spec.number, run.ledger.record)


def tags_of(records: Sequence[Record], workload: WorkloadInfo) -> tuple[str, ...]:
    """Of the directories that a ledger says a workload has, in the order in which it wanted them."""
    return tuple(str(record["tag"]) for record in plugged.held("share", records, workload))


def _follow(core: Core, zone: Zone, run: Run, spec: ShareSpec, *, adopted: bool = False) -> Share:
    assert run.domain is not None
    return run.shares.begin(run.domain, spec.number, lambda: _serve(core, zone, run, spec, adopted=adopted))


def _serve(core: Core, zone: Zone, run: Run, spec: ShareSpec, *, adopted: bool) -> Share:
    assert run.domain is not None
    return core.edge.share(run.domain, spec, run.ledger, core.logs_of(zone) / LOG, adopted=adopted)


def _spec(record: Record) -> ShareSpec:
    return ShareSpec(int(record["number"]), Path(str(record["path"])), bool(record["readonly"]))


def _free_number(zone: Zone, run: Run) -> int:
    """The lowest behind all that the run has had."""
    had = [int(record["number"]) for record in run.ledger.records() if record["kind"] == "share"]
    return max([len(directories(zone.bundle)), *(number + 1 for number in had)])
