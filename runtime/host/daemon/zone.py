"""A zone as the core holds it: what is wanted of it, and its present run.

A run's ledger, not this, is what a teardown goes by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.bundle.model import Bundle
from pipeline.oci import Descriptor
from runtime.boot.domain import Domain
from runtime.boot.xenstore import Watch
from runtime.host.blockdevices import BlockDevice
from runtime.host.daemon import disks
from runtime.host.daemon.agent import AgentLink
from runtime.host.daemon.edge import Network
from runtime.host.daemon.heldshares import HeldShares
from runtime.host.daemon.logwriter import LogWriter
from runtime.host.daemon.model import BootProgress, BootRequest, ExitStatus, PortRule, State, ZoneInfo
from runtime.host.daemon.ports import HeldPorts
from runtime.host.daemon.rows import ZoneRow
from runtime.host.daemon.signals import Changes
from runtime.host.ledger import Ledger
from runtime.host.loops import LoopDevice
from runtime.net.addresses import ZoneAddresses


@dataclass
class Run:
    """One domain's life.

    adopted: an earlier zoned began it.
    up:      it has been built, wired and unpaused, and its network serves; or it has been taken over.
    ready:   its workload has run. paused: it stands still, as its agent told. frozen_in: what the session of the agent
             began with in which it last was to stand still, or to go on; what that says of it is older.
    told:    how it ended, as the zone itself told.
    reason:  how it ended, as Xen has it; "" while it lives.
    devices: of this host, that it has as volumes, by target. shares: directories of this host, likewise, and those of
             its workloads.
    plugging: held by whoever gives it a disk or a directory or takes one back: a name that is free may not be taken by
             two, nor while the kernel has still to let go of the disk before.
    joined:  the channel of its agent was looked for: without a link from then on, it has none.
    news:    its init has reported something in xenstore.
    notes:   what its agent has told, greetings among it, that is still to be taken.
    listening: the sockets that its agent has told, each again as a session begins.
    """

    uuid: str
    ledger: Ledger
    addresses: ZoneAddresses
    console: Path
    adopted: bool = False
    domain: Domain | None = None
    network: Network | None = None
    link: AgentLink | None = None
    watch: Watch | None = None
    loops: list[LoopDevice] = field(default_factory=list)
    shares: HeldShares = field(default_factory=HeldShares)
    plugging: asyncio.Lock = field(default_factory=asyncio.Lock)
    devices: dict[str, BlockDevice] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    zone_timings: dict[str, float] = field(default_factory=dict)
    joined: bool = False
    phase: str = ""
    health: str = ""
    up: bool = False
    ready: bool = False
    paused: bool = False
    frozen_in: Mapping[str, Any] | None = None
    oom: bool = False
    told: ExitStatus | None = None
    reason: str = ""
    since: float = 0.0  # by the monotonic clock
    news: Changes = field(default_factory=Changes)
    notes: asyncio.Queue[tuple[bool, Mapping[str, Any]]] = field(default_factory=asyncio.Queue)
    listening: set[tuple[str, str, int]] = field(default_factory=set)


@dataclass
class StopOrder:
    """Somebody wants it ended: by its stop signal, and by force once timeout_s are over; 0: by force at once."""

    timeout_s: float


@dataclass
class Zone:
    """One zone, from its request until it is removed."""

    id: str
    request: BootRequest
    state: State = State.QUEUED
    wanted: bool = True
    restarts: int = 0
    pause_s: float = 0.0  # before its last start, or before the one it waits for; 0: nothing has made it wait
    exit: ExitStatus | None = None
    created: float = 0.0
    started: float = 0.0
    ready: float = 0.0
    finished: float = 0.0
    uuid: str = ""
    index: int = -1
    ports: tuple[PortRule, ...] = ()
    console_tail: tuple[str, ...] = ()
    held: HeldPorts = field(default_factory=HeldPorts)
    run: Run | None = None
    last: Run | None = None  # the run before, for what it measured
    failure: Exception | None = None  # why the last run did not come up
    stop: StopOrder | None = None
    going: bool = False  # somebody is in the midst of removing it, or of replacing it
    removed: bool = False
    awaited: bool = False  # whoever booted it has still to attach
    attached: int = 0  # how many follow its workload
    task: asyncio.Task[None] | None = None
    log: LogWriter | None = None
    listeners: list[Callable[[BootProgress], None]] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by an update

    @property
    def name(self) -> str:
        """Unique among the zones of a host."""
        return self.request.bundle.name

    @property
    def bundle(self) -> Bundle:
        """What it is made of."""
        return self.request.bundle

    @property
    def lives(self) -> bool:
        """Is it live, and will it get on? One whose task was cancelled, as an ending loop does, stays as it is."""
        return self.state.live and not (self.task is not None and self.task.cancelled())

    def blobs(self) -> list[Descriptor]:
        """Every blob it runs from: none of their disks may be unplugged while it does."""
        bundle = self.bundle
        optional = [bundle.addons, *(volume.blob for volume in bundle.volumes)]
        return [bundle.kernel, *bundle.initrd, bundle.rootfs, *(blob for blob in optional if blob is not None)]

    def say(self, stage: str, text: str = "") -> None:
        """Tell whoever follows the boot."""
        for listener in list(self.listeners):
            listener(BootProgress(stage, text, info(self)))


def row(zone: Zone) -> ZoneRow:
    """What the database keeps."""
    return ZoneRow(
        id=zone.id,
        name=zone.name,
        request=zone.request,
        state=zone.state,
        wanted=zone.wanted,
        restarts=zone.restarts,
        exit=zone.exit,
        created=zone.created,
        started=zone.started,
        ready=zone.ready,
        finished=zone.finished,
        uuid=zone.uuid,
        index=zone.index,
        ports=zone.ports,
        console_tail=zone.console_tail,
        pause_s=zone.pause_s,
    )


def of_row(kept: ZoneRow) -> Zone:
    """A zone as the database knows it."""
    return Zone(
        id=kept.id,
        request=kept.request,
        state=kept.state,
        wanted=kept.wanted,
        restarts=kept.restarts,
        exit=kept.exit,
        created=kept.created,
        started=kept.started,
        ready=kept.ready,
        finished=kept.finished,
        uuid=kept.uuid,
        index=kept.index,
        ports=kept.ports,
        console_tail=kept.console_tail,
        pause_s=kept.pause_s,
    )


def _shown(zone: Zone) -> State:
    """A zone that was told to end is stopping, whatever it is still in the midst of."""
    return State.STOPPING if zone.stop is not None and zone.state.live else zone.state


def info(zone: Zone, **seen: Any) -> ZoneInfo:
    """What others are told. seen: what was just asked of the guest, memory_seen_mib and vcpus_seen."""
    bundle, run = zone.bundle, zone.run or zone.last
    alive = zone.run
    addresses = alive.addresses if alive else None
    resources = bundle.resources
    return ZoneInfo(
        id=zone.id,
        name=zone.name,
        state=_shown(zone),
        domain_uuid=alive.uuid if alive else "",
        domid=alive.domain.domid if alive and alive.domain else 0,
        image=bundle.image or str(bundle.rootfs.digest),
        kernel=bundle.kernel_image or str(bundle.kernel.digest),
        manifest=zone.request.manifest,
        memory_mib=resources.memory_mib,
        memory_max_mib=max(resources.memory_max_mib, resources.memory_mib),
        vcpus=resources.vcpus,
        vcpus_max=max(resources.vcpus_max, resources.vcpus),
        addresses=(addresses.zone4, addresses.zone6) if addresses else (),
        mac=addresses.zone_mac if addresses else "",
        gateways=(addresses.gateway4, addresses.gateway6) if addresses else (),
        ports=zone.ports,
        exit=zone.exit,
        restart=zone.request.restart,
        restarts=zone.restarts,
        created_unix_s=zone.created,
        started_unix_s=zone.started,
        ready_unix_s=zone.ready,
        finished_unix_s=zone.finished,
        remove=zone.request.remove,
        labels=zone.request.labels,
        timings=dict(run.timings) if run else {},
        zone_timings=dict(run.zone_timings) if run else {},
        blobs=tuple(str(blob.digest) for blob in zone.blobs()),
        console_tail=zone.console_tail,
        command=bundle.process.argv,
        health=alive.health if alive else "",
        tty=bundle.process.tty,
        network=(zone.request.network_name or zone.name) if alive else "",
        egress=bundle.network.egress,
        bandwidth_bit_s=bundle.network.bandwidth_bit_s,
        agent=bool(alive and alive.link and alive.link.connected.is_set()),
        reservation=zone.request.reservation,
        volumes=disks.volume_infos(bundle, alive.devices if alive else {}),
        devices=disks.device_infos(bundle, alive.devices if alive else {}, addresses.zone_mac if addresses else ""),
        paused=bool(alive and alive.paused and _shown(zone) is State.READY),
        limits=bundle.confinement.limits if bundle.confinement else {},
        refuse=(bundle.confinement.refuse if bundle.confinement else None) or (),
        **seen,
    )
