"""Workloads: several containers in one zone, each from an image disk of its own that is plugged in for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import uuid as uuids
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.oci import Descriptor
from runtime.errors import RuntimeFault
from runtime.host.daemon import agentwatch, exits, logreader, names, plugged, rows, shares, volumes
from runtime.host.daemon.agent import AgentLink
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import NameTaken, WrongState
from runtime.host.daemon.logwriter import LogWriter
from runtime.host.daemon.model import ProcessStart, WorkloadInfo, WorkloadRequest, WorkloadState
from runtime.host.daemon.sessions import AttachSession, Joined, Session, call, link_of
from runtime.host.daemon.signals import Changes, first, until
from runtime.host.daemon.zone import Run, Zone
from runtime.host.loops import LoopDevice
from runtime.share.backend import Share

log = logging.getLogger(__name__)

CREATE_TIMEOUT_S = 60.0
_LIVE = (WorkloadState.CREATED, WorkloadState.RUNNING, WorkloadState.COMPLETED)
_ENDED = (WorkloadState.COMPLETED, WorkloadState.FAILED, WorkloadState.DESTROYED)
_AGAIN_S = 0.2
LEDGER_AGAIN_S = 5.0


class Workload:
    """One container as the core holds it.

    lock:  of whoever makes or unmakes it: its disk's name is another's as soon as it is given back.
    """

    def __init__(self, info: WorkloadInfo, uuid: str) -> None:
        self.info, self.uuid = info, uuid
        self.loop: LoopDevice | None = None
        self.log: LogWriter | None = None
        self.reader: asyncio.Task[None] | None = None
        self.changes = Changes()
        self.lock = asyncio.Lock()

    @property
    def id(self) -> str:
        """A uuid; also the container's name in the zone."""
        return self.info.id

    @property
    def name(self) -> str:
        """Unique in its zone."""
        return self.info.name


class Workloads:
    """All workloads of one host."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.all: dict[str, Workload] = {}
        core.note_takers.append(self.heard)
        core.run_enders.append(self.run_ended)
        core.forgetters.append(self.zone_removed)

    async def load(self) -> None:
        """Those there were; before zones are adopted, as their agents tell at once what became of their containers."""
        for columns in await self._core.database.read(rows.SELECT_WORKLOADS):
            try:
                info, uuid = rows.workload_row(columns)
            except rows.UNREADABLE as error:
                log.error("workload %s is not known: its row in the database cannot be read: %s", columns[1], error)
                continue
            self.all[info.id] = Workload(info, uuid)

    async def settle(self) -> None:
        """After zones are adopted: of those in other zones nothing is left; what was begun of the rest is ended."""
        for workload in list(self.all.values()):
            zone = self._core.zones.get(workload.info.zone_id)
            if zone is None:
                self.all.pop(workload.id)
                continue
            try:
                await self._settle(zone, workload)
            except Exception:  # a defect of ours, or a record of another version: it costs this workload
                log.exception("workload %s is left as it is", workload.name)

    async def _settle(self, zone: Zone, workload: Workload) -> None:
        run = zone.run
        if run is None or run.uuid != workload.uuid:
            await self._zone_ended(zone, workload)
            return
        try:
            records = await self._core.thread(run.ledger.records)
        except FileNotFoundError:
            return  # its zone has ended just now, see run_ended
        except OSError as error:
            log.error("workload %s is settled later: %s", workload.name, error)
            self._core.background(self._settle_later(zone, run, workload))
            return
        workload.info = dataclasses.replace(workload.info, tags=shares.tags_of(records, workload.info))
        if workload.info.state in (WorkloadState.CREATING, WorkloadState.DESTROYING):
            disk = next((str(record["vdev"]) for record in plugged.held("vbd", records, workload.info)), "")
            workload.info = dataclasses.replace(workload.info, device=workload.info.device or disk)
            self._core.background(self._finish(zone, run, workload))

    async def _settle_later(self, zone: Zone, run: Run, workload: Workload) -> None:
        await self._core.clock.sleep(LEDGER_AGAIN_S)
        if zone.run is run and workload.id in self.all:
            await self._settle(zone, workload)

    def find(self, ref: str) -> Workload:
        """By name, id or the start of an id. Raises UnknownZone."""
        return names.resolve(ref, self.all, "workload")

    async def create(self, zone: Zone, request: WorkloadRequest) -> WorkloadInfo:
        """See Manager.create_workload."""
        core = self._core
        names.check_name(request.name, "workload")
        await shares.look(core, zone, request.name, request.mounts)
        link, run = await link_of(zone), zone.run  # first: from the look at names on nothing may come in between
        if any(other.name == request.name and other.info.zone_id == zone.id for other in self.all.values()):
            raise NameTaken(
                f"workload {request.name}", expected=f"a name that zone {zone.name} has not", got="another's"
            )
        assert run is not None and run.domain is not None
        info = WorkloadInfo(
            id=str(uuids.uuid4()),
            name=request.name,
            zone_id=zone.id,
            state=WorkloadState.CREATING,
            request=request,
            created_unix_s=core.clock.now(),
        )
        workload = self.all[info.id] = Workload(info, run.uuid)
        async with workload.lock:
            await self._become(workload, WorkloadState.CREATING)
            try:
                async with run.plugging:
                    device, begun = await core.thread(self._plug, zone, run, workload)
                workload.info = dataclasses.replace(workload.info, device=device, tags=tuple(begun))
                await shares.connected(core, begun.values())
                spec = _container(workload.info)
                await link.call("create", {"id": info.id, "spec": spec}, CREATE_TIMEOUT_S)
                return await self._become(workload, WorkloadState.CREATED)
            except BaseException as error:
                await self._never_made(zone, workload, str(error) or type(error).__name__)
                raise

    async def start(self, workload: Workload) -> WorkloadInfo:
        """See Manager.start_workload."""
        zone = self._zone(workload)
        if workload.info.state not in (WorkloadState.CREATED, WorkloadState.COMPLETED):
            raise self._wrong(workload, "it created or completed")
        await call(zone, "start", {"id": workload.id}, CREATE_TIMEOUT_S)
        workload.info = dataclasses.replace(
            workload.info, exit=None, started_unix_s=self._core.clock.now(), finished_unix_s=0.0
        )
        info = await self._become(workload, WorkloadState.RUNNING)
        self._follow(zone, workload)
        return info

    async def stop(self, workload: Workload, timeout_s: float) -> WorkloadInfo:
        """See Manager.stop_workload."""
        zone = self._zone(workload)
        if workload.info.state is WorkloadState.RUNNING:
            params = {"id": workload.id, "timeout_s": timeout_s}
            reply = await call(zone, "stop", params, timeout_s + CREATE_TIMEOUT_S)
            await self._completed(workload, reply.get("exit"))
        return workload.info

    async def kill(self, workload: Workload, signal: int) -> WorkloadInfo:
        """Signal its first process."""
        await call(self._zone(workload), "kill", {"id": workload.id, "signal": signal, "all": False})
        return workload.info

    async def destroy(self, workload: Workload) -> WorkloadInfo:
        """See Manager.destroy_workload."""
        async with workload.lock:
            zone = self._core.zones.get(workload.info.zone_id)
            if workload.info.state is WorkloadState.DESTROYED:  # by another's call, meanwhile
                return workload.info
            if zone is not None and zone.run is not None and zone.run.uuid == workload.uuid:
                if zone.run.domain is None:
                    raise self._wrong(workload, "its zone taken over from the zoned before")
                await self._become(workload, WorkloadState.DESTROYING)
                await self._give_back(zone, workload)
            return await self._forget(zone, workload)

    async def attach(self, workload: Workload, start: ProcessStart) -> Session:
        """Join its output and input."""
        zone = self._zone(workload)
        writer = self.log_of(zone, workload)
        entries = logreader.read_log(
            writer.directory,
            behind=None if start.replay else writer.end,
            changes=Joined(workload.changes, writer.changes),
            ended=lambda: workload.info.state in _ENDED and (workload.reader is None or workload.reader.done()),
        )
        return AttachSession(zone, workload.id, entries, lambda: workload.info.exit)

    def log_of(self, zone: Zone, workload: Workload) -> LogWriter:
        """The writer of its output."""
        if workload.log is None:
            workload.log = LogWriter(self._core.logs_of(zone) / workload.id)
        return workload.log

    # -- what agents and zones tell ------------------------------------------------------------------------------------

    async def heard(self, zone: Zone, container: str, note: Mapping[str, Any]) -> None:
        """A note, or what HELLO listed, of a container that may be one of ours."""
        workload = self.all.get(container)
        if workload is None or zone.run is None or workload.uuid != zone.run.uuid:
            return
        if note.get("event") == "exit":
            await self._completed(workload, note)
        elif note.get("event") == "listed":
            if note.get("state") == "stopped":
                await self._completed(workload, note.get("exit"))
            elif note.get("state") in ("running", "paused"):
                await self._become(workload, WorkloadState.RUNNING)
            if workload.info.state in (WorkloadState.RUNNING, WorkloadState.COMPLETED):
                self._follow(zone, workload)  # an earlier zoned may not have stored all of it

    async def run_ended(self, zone: Zone, run: Run) -> None:
        """A zone takes its workloads with it."""
        for workload in list(self.all.values()):
            if workload.uuid != run.uuid or workload.info.zone_id != zone.id:
                continue
            if workload.reader is not None:
                workload.reader.cancel()
            if workload.loop is not None:
                workload.loop.close()
            await self._zone_ended(zone, workload)

    def zone_removed(self, zone: Zone) -> None:
        """The database has forgotten its workloads with it."""
        for workload in [item for item in self.all.values() if item.info.zone_id == zone.id]:
            self.all.pop(workload.id)
            if workload.log is not None:
                workload.log.close()
            workload.changes.tell()

    # -- what an earlier zoned was in the midst of ---------------------------------------------------------------------

    async def _finish(self, zone: Zone, run: Run, workload: Workload) -> None:
        """Complete a creation or a removal that a dead zoned had begun, as its agent says how far it had come."""
        while workload.info.state in (WorkloadState.CREATING, WorkloadState.DESTROYING):
            await until(zone.changes, lambda: zone.run is not run or run.joined, self._core.clock)
            if run.link is not None:
                await first(run.link.connected.wait(), _until_over(zone, run))
            if zone.run is not run:
                return  # with its zone, see run_ended
            try:
                if workload.info.state is WorkloadState.DESTROYING:
                    await self.destroy(workload)
                else:
                    await self._take_up(zone, run.link, workload)
            except RuntimeFault as fault:
                log.warning("workload %s: %s", workload.name, fault)
                await self._core.clock.sleep(_AGAIN_S)

    async def _take_up(self, zone: Zone, link: AgentLink | None, workload: Workload) -> None:
        """It has been made, or it never was. A creation that was under way ended with that zoned's session."""
        async with workload.lock:
            reply = {} if link is None else await link.call("list", {})
            listed = reply.get("containers")
            found = [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
            if workload.info.state is not WorkloadState.CREATING:
                return  # its agent has told more meanwhile
            if any(item.get("id") == workload.id for item in found):
                await self._become(workload, WorkloadState.CREATED)
            else:
                await self._never_made(zone, workload, "zoned ended while it was created")

    async def _never_made(self, zone: Zone, workload: Workload, error: str) -> None:
        with contextlib.suppress(RuntimeFault):
            await self._give_back(zone, workload)
        workload.info = dataclasses.replace(workload.info, device="", tags=())
        await self._become(workload, WorkloadState.FAILED, error=error)

    async def _zone_ended(self, zone: Zone, workload: Workload) -> None:
        workload.info = dataclasses.replace(workload.info, tags=())
        if workload.info.state is WorkloadState.DESTROYING:
            if not workload.lock.locked():  # else whoever destroys it sees to it
                await self._forget(zone, workload)
        elif workload.info.state not in _ENDED:
            await self._become(workload, WorkloadState.FAILED, error="its zone ended")

    # -- within --------------------------------------------------------------------------------------------------------

    def _plug(self, zone: Zone, run: Run, workload: Workload) -> tuple[str, dict[str, Share]]:
        """All that it is to have: the name of its disk, and its directories by their tags."""
        request = workload.info.request
        device = self._plug_disk(run, workload, request.rootfs) if request.rootfs is not None else ""
        return device, shares.plug(self._core, zone, run, workload.id, request.mounts)

    def _plug_disk(self, run: Run, workload: Workload, rootfs: Descriptor) -> str:
        assert run.domain is not None
        source = self._core.edge.find(rootfs)
        path: Path = source.path
        record = functools.partial(run.ledger.record, workload=workload.id)  # a later zoned finds its disk by this
        if not source.disk:
            workload.loop = self._core.edge.loop(path, record)
            path = workload.loop.device
        return self._core.edge.plug(run.domain, path, record)

    async def _give_back(self, zone: Zone, workload: Workload) -> None:
        run = zone.run
        if run is None or run.domain is None:
            return
        for method, params in (("stop", {"id": workload.id, "timeout_s": 0}), ("delete", {"id": workload.id})):
            with contextlib.suppress(RuntimeFault):  # it may never have been made
                await call(zone, method, params)
        async with run.plugging:
            with contextlib.suppress(FileNotFoundError):  # its ledger, as the zone has ended meanwhile
                await self._core.thread(self._unplug, zone, run, workload)

    def _unplug(self, zone: Zone, run: Run, workload: Workload) -> None:
        """Its disk, with what the ledger has of it: an earlier zoned may have taken some of that, or given it back."""
        assert run.domain is not None
        shares.unplug(self._core, zone, run, workload.info)  # first: it does not wait for the zone
        records = run.ledger.records()
        held = [("vbd", record) for record in plugged.held("vbd", records, workload.info)]
        held += [("loop", record) for record in plugged.held("loop", records, workload.info)]
        for vdev in {workload.info.device, *(str(record["vdev"]) for kind, record in held if kind == "vbd")} - {""}:
            self._core.edge.unplug(run.domain, vdev, run.ledger.record)
        if workload.loop is not None:
            workload.loop.close()
            workload.loop = None
        left = run.ledger.records()
        for kind, record in held:
            if record in plugged.current(kind, left):
                fields = {name: value for name, value in record.items() if name not in ("kind", "workload")}
                run.ledger.record(f"{kind}.gone", **fields)

    async def _forget(self, zone: Zone | None, workload: Workload) -> WorkloadInfo:
        if workload.reader is not None:
            workload.reader.cancel()
        workload.info = dataclasses.replace(workload.info, state=WorkloadState.DESTROYED, device="", tags=())
        self.all.pop(workload.id, None)
        gone = ("DELETE FROM workloads WHERE id = ?", [workload.id])
        await self._core.tell("workload.destroyed", zone, gone, workload=workload.id, name=workload.name)
        workload.changes.tell()
        return workload.info

    def _follow(self, zone: Zone, workload: Workload) -> None:
        if (workload.reader is not None and not workload.reader.done()) or zone.run is None or zone.run.link is None:
            return
        opened = functools.partial(self.log_of, zone, workload)
        work = agentwatch.follow_log(self._core, zone.run.link, workload.id, opened, f"{workload.uuid}/{workload.id}")
        workload.reader = asyncio.create_task(work, name=f"log of {workload.name}")
        workload.reader.add_done_callback(lambda _: workload.changes.tell())

    async def _completed(self, workload: Workload, document: object) -> None:
        if workload.info.state in _ENDED or workload.info.state is WorkloadState.DESTROYING:
            return
        exit = exits.from_agent(document)
        workload.info = dataclasses.replace(workload.info, exit=exit, finished_unix_s=self._core.clock.now())
        await self._become(workload, WorkloadState.COMPLETED)

    async def _become(self, workload: Workload, state: WorkloadState, *, error: str = "") -> WorkloadInfo:
        workload.info = dataclasses.replace(workload.info, state=state, error=error or workload.info.error)
        zone = self._core.zones.get(workload.info.zone_id)
        if workload.id not in self.all:  # removed with its zone: what is written now would stay for good
            workload.changes.tell()
            return workload.info
        saved = rows.save_workload(workload.info, workload.uuid)
        attributes = {"workload": workload.id, "name": workload.name}
        await self._core.tell(f"workload.{state.value}", zone, saved, **attributes)
        workload.changes.tell()
        return workload.info

    def _zone(self, workload: Workload) -> Zone:
        zone = self._core.zones.get(workload.info.zone_id)
        if zone is None or zone.run is None or zone.run.uuid != workload.uuid:
            raise self._wrong(workload, "its zone running")
        return zone

    @staticmethod
    def _wrong(workload: Workload, expected: str) -> WrongState:
        return WrongState(f"workload {workload.name}", expected=expected, got=f"it is {workload.info.state.value}")


def _container(info: WorkloadInfo) -> dict[str, Any]:
    """The container's spec, with what was plugged in for it."""
    spec = dict(info.request.container)
    if info.device:
        root = spec.get("root")
        spec["root"] = {**(root if isinstance(root, Mapping) else {}), "device": info.device}
    if info.tags:
        shared = [volumes.directory_mount(*mount) for mount in zip(info.request.mounts, info.tags, strict=True)]
        # Those further up first, which would hide the others.
        spec["mounts"] = sorted([*spec.get("mounts", ()), *shared], key=lambda mount: mount["destination"].count("/"))
    return spec


async def _until_over(zone: Zone, run: Run) -> None:
    while zone.run is run:
        await zone.changes.after(zone.changes.count)
