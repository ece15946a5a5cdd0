"""The manager: the one object that owns the zones of this host. Everything here runs on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline.oci import Descriptor, Digest
from runtime.boot.attend import LoopAttendant
from runtime.boot.model import Domid
from runtime.errors import RuntimeFault
from runtime.host.check.model import HostPort, Report
from runtime.host.daemon import (
    adopt,
    blobs,
    bringup,
    commands,
    ending,
    figures,
    hoststate,
    logreader,
    passing,
    pausing,
    reservations,
    sessions,
    sharednets,
    snooping,
    unread,
    updates,
)
from runtime.host.daemon.agent import MAIN
from runtime.host.daemon.core import Core, Settings
from runtime.host.daemon.database import Database
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.logformat import segments
from runtime.host.daemon.model import (
    BootProgress,
    BootRequest,
    DiskUsageRow,
    Emit,
    Event,
    HostStatus,
    LogEntry,
    Metric,
    NetworkInfo,
    ProcessStart,
    Pruned,
    Reservation,
    Update,
    WorkloadInfo,
    WorkloadRequest,
    ZoneFlows,
    ZoneInfo,
    ZoneProcess,
)
from runtime.host.daemon.names import resolve
from runtime.host.daemon.sessions import Joined
from runtime.host.daemon.sessions import Session as Session  # what attach and exec give
from runtime.host.daemon.signals import Clock, SystemClock
from runtime.host.daemon.workloads import Workloads
from runtime.host.daemon.zone import Zone, info
from runtime.host.ledger import boot_id
from runtime.net.capture import CaptureRequest, Piece

END_TIMEOUT_S = 60.0
XENSTORE_LOOK_S = 5.0
MOST_PINGS = 1000


def ignore(progress: BootProgress) -> None:
    """An Emit for whoever does not want to hear."""


class Manager:
    """All zones of one host.

    Zones are named (`ref`) by name, id, or the start of an id (3 characters or more).
    Raises (all methods): RuntimeFaults of errors.py, and what building and wiring raise; UnknownZone names what is
    near. A cancelled call undoes what it began.
    """

    def __init__(
        self, settings: Settings, edge: Edge, *, clock: Clock | None = None, this_boot: str | None = None
    ) -> None:
        self._settings, self._edge = settings, edge
        self._clock, self._boot_id = clock or SystemClock(), this_boot or boot_id(settings.run_dir)
        self._started = self._clock.now()
        self.core: Core
        self.workloads: Workloads

    async def start(self) -> None:
        """Open the state, adopt what runs, end what is unfinished, boot what the restart policies say."""
        settings = self._settings
        if self._edge.attendant is None:
            self._edge.attendant = LoopAttendant(asyncio.get_running_loop())
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = await asyncio.to_thread(Database, settings.state_dir / "zones.sqlite")
        core = self.core = Core(settings, self._edge, database, self._boot_id, self._clock)
        self.workloads = Workloads(core)
        core.deaths = await core.thread(self._edge.deaths, self._died)
        if database.damaged is not None:
            await core.tell("host.state-damaged", kept_as=str(database.damaged))
        await self.workloads.load()
        await adopt.recover(core)
        await self.workloads.settle()
        core.background(ending.reap(core))
        core.background(self._watch_xenstore())

    async def close(self, *, end_zones: bool = False) -> None:
        """Let go of everything; zones run on and are adopted by the next manager, unless they are to end."""
        core = self.core
        if end_zones:
            live = [zone for zone in core.zones.values() if zone.state.live]
            for zone in live:
                await commands.order_stop(core, zone, float(zone.bundle.process.stop_timeout_s))
            tasks = [zone.task for zone in live if zone.task is not None]
            if tasks:
                await asyncio.wait(tasks, timeout=END_TIMEOUT_S)
        core.leaving = True
        tasks = [zone.task for zone in core.zones.values() if zone.task is not None]
        tasks += [workload.reader for workload in self.workloads.all.values() if workload.reader is not None]
        tasks += core.tasks
        for task in tasks:
            task.cancel()
        await bringup.settled(tasks)
        await sharednets.leave(core)
        if core.deaths is not None:
            await asyncio.to_thread(core.deaths.close)
        await asyncio.to_thread(core.workers.shutdown)
        await asyncio.to_thread(core.builders.shutdown)
        await asyncio.to_thread(core.database.close)

    async def until_fatal(self) -> str:
        """Return when this zoned cannot go on, with the reason; the next one adopts its zones."""
        return await asyncio.shield(self.core.fatal)

    async def _watch_xenstore(self) -> None:
        """A xenstored that was restarted knows nothing of our watches: the next zoned looks at everything anew."""
        while not self._edge.xenstore.gone:
            await self._clock.sleep(XENSTORE_LOOK_S)
        self.core.give_up("xenstored went away")

    def _died(self, domid: Domid, reason: str) -> None:
        """From the thread that watches domains."""
        self.core.soon(lambda: self._ended(domid, reason))

    def _ended(self, domid: Domid, reason: str) -> None:
        for zone in self.core.zones.values():
            run = zone.run
            if run is not None and run.domain is not None and run.domain.domid == domid and not run.reason:
                run.reason = reason
                zone.changes.tell()

    def _zone(self, ref: str) -> Zone:
        unread.refuse(self.core, ref)
        return resolve(ref, self.core.zones)

    # -- zones ---------------------------------------------------------------------------------------------------------

    async def boot(self, request: BootRequest, emit: Emit = ignore) -> ZoneInfo:
        """Make a zone of the request and start it; when it returns is the request's `until_…`.

        A zone of the same name that has ended gives way, but not to a request for a fresh one. Cancelled before it
        returns, the zone ends and is forgotten; failed, it stays listed as such unless it is to be removed.
        Raises:  NameTaken, BadRequest, NotEnough, BlobUnreachable, BootCancelled (stopped meanwhile), ZoneFailed.
        """
        return await commands.boot(self.core, request, emit)

    def list_zones(self, *, all: bool = True) -> list[ZoneInfo]:
        """By name; without `all` only live ones."""
        zones = sorted(self.core.zones.values(), key=lambda zone: zone.name)
        return [info(zone) for zone in zones if all or zone.state.live]

    async def get(self, ref: str, *, fresh: bool = False) -> ZoneInfo:
        """One zone; fresh asks Xen what memory and vCPUs it has now."""
        zone = self._zone(ref)
        seen: dict[str, Any] = {}
        if fresh and zone.run is not None and zone.run.domain is not None:
            with contextlib.suppress(RuntimeFault):  # it may be going
                found = await self.core.thread(self._edge.resources, zone.run.domain)
                seen = {"memory_seen_mib": found.memory_now_mib, "vcpus_seen": found.vcpus_now}
        return info(zone, **seen)

    async def stop(self, ref: str, timeout_s: float | None = None) -> ZoneInfo:
        """Its stop signal, its timeout, then the end. A boot is called off; an exited zone is fine."""
        return await commands.stop(self.core, self._zone(ref), timeout_s)

    async def kill(self, ref: str, signal: int = 9) -> ZoneInfo:
        """Signal the workload; 0 ends the domain at once."""
        return await commands.kill(self.core, self._zone(ref), signal)

    async def restart(self, ref: str, timeout_s: float | None = None, *, unless_live: bool = False) -> ZoneInfo:
        """Stop if it runs, then start again. unless_live: one that runs stays as it is, one that ends is waited for."""
        return await commands.restart(self.core, self._zone(ref), timeout_s, unless_live=unless_live)

    async def remove(self, ref: str, *, force: bool = False) -> ZoneInfo:
        """Forget an exited zone with its logs; force ends a live one first. As it was last.

        force also forgets one of which what is written cannot be read, unless it may run.
        """
        if force and (left := unread.find(self.core, ref)) is not None:
            return await unread.remove(self.core, *left)
        return await commands.remove(self.core, self._zone(ref), force=force)

    async def wait(self, ref: str, until: str = "exited", timeout_s: float = 0.0) -> ZoneInfo:
        """until: exited, running, ready, ports, removed. Raises ZoneFailed, WaitTimeout."""
        return await commands.wait(self.core, self._zone(ref), until, timeout_s)

    async def update(self, ref: str, change: Update) -> ZoneInfo:
        """Change memory, vCPUs, restart policy, ports, limits; what the guest then has, `get(fresh=True)` says."""
        return await updates.update(self.core, self._zone(ref), change)

    async def pause(self, ref: str, *, paused: bool = True) -> ZoneInfo:
        """Have every process of the workload stand still, or go on; one that does is fine. The zone itself goes on."""
        return await pausing.pause(self.core, self._zone(ref), paused=paused)

    # -- output and input ----------------------------------------------------------------------------------------------

    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        since: float = 0.0,
        until: float = 0.0,
        tail: int = -1,
        console: bool = False,
        workload: str = "",
    ) -> AsyncIterator[LogEntry]:
        """What a zone, or one of its workloads, printed; follow goes on until it has ended.

        The output of a zone without an agent is on its console. Raises BadRequest for times of a console.
        """
        zone = self._zone(ref)

        def ended() -> bool:
            return not zone.state.live or zone.removed

        if workload:
            writer = self.workloads.log_of(zone, self._workload(zone, workload))
        elif console or (not segments(self.core.logs_of(zone)) and not (zone.run and zone.run.link)):
            if since or until:
                got = "what its console says, of which no times are kept"
                raise BadRequest(f"logs of zone {zone.name}, since and until", expected="output with times", got=got)
            path = self.core.logs_of(zone) / "console"
            files = (Path(f"{path}.1"), path)
            return logreader.read_console(files, self._clock, tail=tail, follow=follow, ended=ended)
        else:
            writer = self.core.log_of(zone)
        changes = Joined(zone.changes, writer.changes) if follow else None
        return logreader.read_log(writer.directory, since=since, until=until, tail=tail, changes=changes, ended=ended)

    async def attach(self, start: ProcessStart) -> Session:
        """Join the output and input of a workload."""
        zone = self._zone(start.zone)
        if start.workload:
            return await self.workloads.attach(self._workload(zone, start.workload), start)
        return await sessions.attach_main(self.core, zone, start)

    async def exec(self, start: ProcessStart) -> Session:
        """Run one more process in a workload's container, or in the zone itself."""
        zone = self._zone(start.zone)
        if not start.argv:
            raise BadRequest(f"exec in zone {zone.name}", expected="a command", got="none")
        if start.outside and start.workload:
            raise BadRequest(f"exec in zone {zone.name}", expected="a workload or the zone itself", got="both")
        container = "" if start.outside else self._container(zone, start.workload)
        return await sessions.exec_process(self.core, zone, container, start)

    async def copy_in(self, ref: str, path: str, chunks: AsyncIterator[bytes], *, workload: str = "") -> int:
        """Unpack a tar archive into a directory of the zone; how many extended attributes found no place there."""
        zone = self._zone(ref)
        return await sessions.copy_in(zone, self._container(zone, workload), path, chunks)

    def copy_out(self, ref: str, path: str, *, workload: str = "") -> AsyncIterator[bytes]:
        """A path of the zone as a tar archive."""
        zone = self._zone(ref)
        return sessions.copy_out(zone, self._container(zone, workload), path)

    async def dial(self, ref: str, address: str, port: int) -> Session:
        """A TCP connection made inside the zone; its bytes are stdin and stdout of the session."""
        return await sessions.dial(self._zone(ref), address, port)

    async def metrics(self, ref: str) -> list[Metric]:
        """What the zone measures of itself."""
        return figures.metrics_of(await sessions.call(self._zone(ref), "metrics", {}))

    def watch_metrics(self, ref: str, interval_s: float) -> AsyncIterator[list[Metric]]:
        """The same again and again, as the zone tells it by itself; ends with it, by a fault."""
        return sessions.watch_metrics(self._zone(ref), interval_s)

    async def ping(self, ref: str, count: int = 1) -> list[float]:
        """Round trips of a zone's agent channel, one after the other. Units: seconds."""
        zone, trips = self._zone(ref), []
        for _ in range(max(1, min(count, MOST_PINGS))):
            begin = time.monotonic()
            await sessions.call(zone, "ping", {})
            trips.append(time.monotonic() - begin)
        return trips

    async def processes(self, ref: str, *, workload: str = "") -> list[ZoneProcess]:
        """The processes in a zone, or in one container."""
        zone = self._zone(ref)
        params = {"container": self._workload(zone, workload).id} if workload else {}
        return figures.processes_of(await sessions.call(zone, "processes", params))

    async def sysctl(self, ref: str, key: str, value: str | None = None) -> str:
        """A setting of a zone's kernel, as it is once a value that is given has been set."""
        params = {"key": key} if value is None else {"key": key, "value": value}
        return str((await sessions.call(self._zone(ref), "sysctl", params)).get("value", ""))

    def snoop(self) -> AsyncIterator[tuple[str, Any]]:
        """(zone id, (direction, kind, fd, stream, payload)) of every agent channel, those opened later too.

        Frames that come faster than they are read are left out, and counted: ("", number of them).
        """
        return snooping.snoop(self.core)

    def _workload(self, zone: Zone, ref: str) -> Any:
        of_zone = {item.id: item for item in self.workloads.all.values() if item.info.zone_id == zone.id}
        return resolve(ref, of_zone, "workload")

    def _container(self, zone: Zone, workload: str) -> str:
        if workload:
            return str(self._workload(zone, workload).id)
        return MAIN if zone.bundle.process.argv else ""

    # -- events --------------------------------------------------------------------------------------------------------

    def events(
        self, *, since: str = "", from_start: bool = False, follow: bool = True, zone: str = ""
    ) -> AsyncIterator[Event]:
        """What happened after the token `since`, or from the start of what is kept, or from now on."""
        zone_id = self._zone(zone).id if zone else ""
        return self.core.events.follow(since=since, from_start=from_start, follow=follow, zone_id=zone_id)

    async def event_token(self) -> str:
        """The token of the last event there was: `events(since=…)` of it misses nothing from now on."""
        return await self.core.events.latest()

    # -- blobs ---------------------------------------------------------------------------------------------------------

    async def find_blobs(self, wanted: Iterable[Descriptor]) -> list[Digest]:
        """Which of them this host lacks."""
        return await blobs.missing(self.core, wanted)

    async def put_blob(self, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
        """Take a blob into the host's store; refused where it does not hash to its name."""
        await blobs.put(self.core, blob, chunks)

    # -- workloads -----------------------------------------------------------------------------------------------------

    async def create_workload(self, request: WorkloadRequest) -> WorkloadInfo:
        """Plug the image's disk into the zone and have its container made."""
        return await self.workloads.create(self._zone(request.zone), request)

    async def start_workload(self, ref: str) -> WorkloadInfo:
        """Start the container's process."""
        return await self.workloads.start(self.workloads.find(ref))

    async def stop_workload(self, ref: str, timeout_s: float = 10.0) -> WorkloadInfo:
        """SIGTERM, then SIGKILL; returns when it has ended."""
        return await self.workloads.stop(self.workloads.find(ref), timeout_s)

    async def kill_workload(self, ref: str, signal: int) -> WorkloadInfo:
        """Signal the container's first process."""
        return await self.workloads.kill(self.workloads.find(ref), signal)

    async def destroy_workload(self, ref: str) -> WorkloadInfo:
        """End the container, remove it, unplug its disk."""
        return await self.workloads.destroy(self.workloads.find(ref))

    def list_workloads(self, zone: str = "") -> list[WorkloadInfo]:
        """All, or those of one zone."""
        zone_id = self._zone(zone).id if zone else ""
        return [item.info for item in self.workloads.all.values() if not zone or item.info.zone_id == zone_id]

    def get_workload(self, ref: str) -> WorkloadInfo:
        """One, by name, id or the start of an id."""
        return self.workloads.find(ref).info

    async def configure_network(self, ref: str, change: dict[str, Any]) -> None:
        """Have the zone's agent change its interface: mtu, routes, neighbours; as its method `network` takes them."""
        await sessions.call(self._zone(ref), "network", change)

    # -- addresses -----------------------------------------------------------------------------------------------------

    async def create_reservation(self) -> Reservation:
        """Keep addresses for later zones."""
        return await reservations.create(self.core)

    async def destroy_reservation(self, reservation_id: str) -> None:
        """Give them back; refused while a zone names them, one that has ended, too."""
        await reservations.destroy(self.core, reservation_id)

    def list_reservations(self) -> list[Reservation]:
        """All, oldest first."""
        return reservations.every(self.core)

    # -- networks that zones share -------------------------------------------------------------------------------------

    async def create_network(self, name: str, mtu: int) -> NetworkInfo:
        """Keep a network's name and addresses, zones in it or not. Raises NameTaken, BadRequest."""
        return await sharednets.create(self.core, name, mtu)

    async def remove_network(self, name: str) -> None:
        """Keep it no longer; refused while zones are in it. Raises UnknownNetwork, WrongState."""
        await sharednets.remove(self.core, name)

    # -- the host ------------------------------------------------------------------------------------------------------

    async def status(self) -> HostStatus:
        """The hypervisor, this domain, zoned itself."""
        return await hoststate.status(self.core, self._started)

    async def check(self, serving: Callable[[], Iterable[HostPort]] = tuple) -> Report:
        """Compare Xen, xenstore and this host with the ledgers, both ways.

        serving:  gives the ports this process serves its API on; asked from another thread.
        """
        return await hoststate.check(self.core, serving)

    async def networks(self) -> list[NetworkInfo]:
        """The private networks of live zones, and those that zones share."""
        return await hoststate.networks(self.core)

    async def flows(self, ref: str = "") -> list[ZoneFlows]:
        """What passes through the network of one zone, or of each that has one."""
        return await passing.flows(self.core, [self._zone(ref)] if ref else list(self.core.zones.values()))

    def capture(self, ref: str, request: CaptureRequest) -> AsyncIterator[Piece]:
        """A capture file of what passes a zone's interface, in pieces, until its end, the zone's or the reader's."""
        return passing.capture(self.core, self._zone(ref), request)

    async def disk_usage(self) -> list[DiskUsageRow]:
        """What lies on this host's disk, and what a prune would free."""
        return await hoststate.disk_usage(self.core)

    async def prune(self, *, zones: bool = False, blobs: bool = False, dry_run: bool = False) -> Pruned:
        """Remove exited zones with their logs; uploaded blobs no zone needs."""
        return await hoststate.prune(self.core, zones=zones, unused_blobs=blobs, dry_run=dry_run)
