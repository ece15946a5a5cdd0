"""A manager without Xen: zones and workloads are entries of a dictionary, processes are what a test says."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.host.daemon.errors import NameTaken, NotEnough, UnknownZone, WrongState
from runtime.host.daemon.manager import ignore
from runtime.host.daemon.model import (
    BootProgress,
    BootRequest,
    Event,
    ExitStatus,
    HostStatus,
    LogEntry,
    Metric,
    Output,
    ProcessStart,
    Reservation,
    State,
    TerminalSize,
    Update,
    WorkloadInfo,
    WorkloadRequest,
    WorkloadState,
    ZoneInfo,
    ZoneProcess,
)
from runtime.host.daemon.sessions import Session
from support.sessions import QueuedSession

HOST_ID = "11111111-2222-3333-4444-555555555555"
MEMORY_MIB = 1024


class EchoSession(QueuedSession):
    """Says back on stdout what it is told, notes sizes on stderr, and exits with 7 at the end of its input."""

    def __init__(self, first: tuple[Output, ...] = ()) -> None:
        super().__init__()
        for output in first:
            self._outputs.put_nowait(output)

    async def write_stdin(self, data: bytes) -> None:
        self._outputs.put_nowait(Output("stdout", data))

    async def close_stdin(self) -> None:
        self._outputs.put_nowait(Output("exit", exit=ExitStatus(code=7)))

    async def resize(self, size: TerminalSize) -> None:
        self._outputs.put_nowait(Output("stderr", f"{size.rows}x{size.columns}".encode()))


@dataclass
class FakeManager:
    """gate: what a boot waits for between "queued" and running."""

    zones: dict[str, ZoneInfo] = field(default_factory=dict)
    workloads: dict[str, WorkloadInfo] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    requests: list[BootRequest] = field(default_factory=list)
    started: list[ProcessStart] = field(default_factory=list)
    sessions: list[EchoSession] = field(default_factory=list)
    network_changes: list[Any] = field(default_factory=list)
    console: list[bytes] = field(default_factory=list)
    frames: list[tuple[str, Any]] = field(default_factory=list)
    dialled: tuple[str, str, int] | None = None
    gate: asyncio.Event | None = None
    missing: set[str] = field(default_factory=set)
    history: list[Event] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def tell(self, kind: str, zone: ZoneInfo, **attributes: str) -> None:
        self.history.append(Event(str(len(self.history) + 1), 1.0, kind, zone.id, zone.name, attributes))
        self.ringing = asyncio.ensure_future(self._ring())

    async def _ring(self) -> None:
        async with self.news:
            self.news.notify_all()

    def find(self, ref: str) -> ZoneInfo:
        for zone in self.zones.values():
            if ref in (zone.name, zone.id) or (len(ref) >= 3 and zone.id.startswith(ref)):
                return zone
        raise UnknownZone(f"zone {ref}", got="no such zone on this host")

    # -- zones ---------------------------------------------------------------------------------------------------------

    async def boot(self, request: BootRequest, emit: Any = ignore) -> ZoneInfo:
        self.requests.append(request)
        bundle = request.bundle
        if any(zone.name == bundle.name for zone in self.zones.values()):
            raise NameTaken(f"zone {bundle.name}", got="there is one of that name")
        if bundle.resources.memory_mib > MEMORY_MIB:
            raise NotEnough(f"zone {bundle.name}", expected=f"at most {MEMORY_MIB} MiB", got="more")
        zone = ZoneInfo(
            id=str(uuid.uuid4()),
            name=bundle.name,
            state=State.QUEUED,
            memory_mib=bundle.resources.memory_mib,
            memory_max_mib=bundle.resources.memory_max_mib,
            vcpus=bundle.resources.vcpus,
            vcpus_max=bundle.resources.vcpus_max,
            addresses=("10.75.0.2/24", "fd00::2/64"),
            gateways=("10.75.0.1", "fd00::1"),
            mac="02:00:00:00:00:02",
            labels=request.labels,
            created_unix_s=1000.25,
            reservation=request.reservation,
        )
        self.zones[zone.id] = zone
        emit(BootProgress("queued", zone=zone))
        self.tell("zone.creating", zone)
        if self.gate is not None:
            await self.gate.wait()
        return self.change(zone, state=State.RUNNING, domid=5, agent=True, ready_unix_s=1001.0)

    def change(self, zone: ZoneInfo, **fields: Any) -> ZoneInfo:
        changed = self.zones[zone.id] = replace(zone, **fields)
        self.tell(f"zone.{changed.state.value}", changed)
        return changed

    def list_zones(self, *, all: bool = True) -> list[ZoneInfo]:
        return sorted(self.zones.values(), key=lambda zone: zone.name)

    async def get(self, ref: str, *, fresh: bool = False) -> ZoneInfo:
        return self.find(ref)

    async def remove(self, ref: str, *, force: bool = False) -> ZoneInfo:
        zone = self.find(ref)
        del self.zones[zone.id]
        self.tell("zone.removed", zone)
        return zone

    async def update(self, ref: str, change: Update) -> ZoneInfo:
        zone = self.find(ref)
        if not zone.state.up:
            raise WrongState(f"zone {ref}", expected="one that runs", got=zone.state.value)
        return self.change(zone, memory_mib=change.memory_mib or zone.memory_mib, vcpus=change.vcpus or zone.vcpus)

    async def configure_network(self, ref: str, change: dict[str, Any]) -> None:
        self.network_changes.append((self.find(ref).name, change))

    # -- output and input ----------------------------------------------------------------------------------------------

    async def logs(self, ref: str, *, follow: bool = False, tail: int = -1, console: bool = False, **_: Any) -> Any:
        assert console and follow
        self.find(ref)
        for data in self.console if tail else ():
            yield LogEntry(0, "console", data)
        yield LogEntry(0, "console", b"live\n")

    async def exec(self, start: ProcessStart) -> Session:
        self.find(start.zone)
        return self._session(start, Output("started"))

    async def attach(self, start: ProcessStart) -> Session:
        return self._session(start, Output("stdout", b"kept\n"))

    def _session(self, start: ProcessStart, *first: Output) -> EchoSession:
        self.started.append(start)
        self.sessions.append(EchoSession(first))
        return self.sessions[-1]

    async def dial(self, ref: str, address: str, port: int) -> Session:
        self.dialled = (self.find(ref).name, address, port)
        self.sessions.append(EchoSession())
        return self.sessions[-1]

    async def metrics(self, ref: str) -> list[Metric]:
        self.find(ref)
        return [Metric("memory.used", 5, "bytes"), Metric("memory.total", 9, "bytes"), Metric("uptime", 1.5, "seconds")]

    async def processes(self, ref: str, *, workload: str = "") -> list[ZoneProcess]:
        return [ZoneProcess(7, 1, 33, "S", 12, 0.5, "web -f")]

    async def snoop(self) -> Any:
        for found in self.frames:
            yield found
        await asyncio.Event().wait()

    async def event_token(self) -> str:
        return str(len(self.history))

    async def events(self, *, since: str = "", follow: bool = True, **_: Any) -> Any:
        position = int(since)
        while True:
            async with self.news:
                while len(self.history) <= position:
                    await self.news.wait()
            position += 1
            yield self.history[position - 1]

    # -- workloads -----------------------------------------------------------------------------------------------------

    async def create_workload(self, request: WorkloadRequest) -> WorkloadInfo:
        zone = self.find(request.zone)
        made = WorkloadInfo(str(uuid.uuid4()), request.name, zone.id, WorkloadState.CREATED, request, device="xvdc")
        self.workloads[made.id] = made
        self.tell("workload.created", zone, workload=made.id)
        return made

    def get_workload(self, ref: str) -> WorkloadInfo:
        for workload in self.workloads.values():
            if ref in (workload.id, workload.name):
                return workload
        raise UnknownZone(f"workload {ref}", got="no such workload on this host")

    def list_workloads(self, zone: str = "") -> list[WorkloadInfo]:
        return list(self.workloads.values())

    async def start_workload(self, ref: str) -> WorkloadInfo:
        return self._workload(ref, state=WorkloadState.RUNNING)

    async def stop_workload(self, ref: str, timeout_s: float = 10.0) -> WorkloadInfo:
        return self._workload(
            ref, state=WorkloadState.COMPLETED, exit=ExitStatus(code=143, signal=15, text=f"{timeout_s}")
        )

    async def destroy_workload(self, ref: str) -> WorkloadInfo:
        workload = self.get_workload(ref)
        del self.workloads[workload.id]
        self.tell("workload.destroyed", self.zones[workload.zone_id], workload=workload.id)
        return workload

    def _workload(self, ref: str, **fields: Any) -> WorkloadInfo:
        changed = replace(self.get_workload(ref), **fields)
        self.workloads[changed.id] = changed
        self.tell(f"workload.{changed.state.value}", self.zones[changed.zone_id], workload=changed.id)
        return changed

    # -- addresses and the host ----------------------------------------------------------------------------------------

    async def create_reservation(self) -> Reservation:
        number = len(self.reservations) + 2
        made = Reservation(
            str(uuid.uuid4()),
            f"10.75.0.{number}",
            f"fd00::{number}",
            "02:00:00:00:00:09",
            "10.75.0.1",
            "fd00::1",
            "02:00:00:00:00:01",
            24,
            64,
        )
        self.reservations[made.id] = made
        return made

    async def destroy_reservation(self, reservation_id: str) -> None:
        if self.reservations.pop(reservation_id, None) is None:
            raise UnknownZone(f"reservation {reservation_id}", got="no such reservation")

    def list_reservations(self) -> list[Reservation]:
        return list(self.reservations.values())

    async def find_blobs(self, wanted: Any) -> list[Any]:
        return [blob.digest for blob in wanted if str(blob.digest) in self.missing]

    async def status(self) -> HostStatus:
        return HostStatus(HOST_ID, "0.1.0", "4.17", "6.1", "3.11", 2048, 4096, 2, 0, 0, (), 0.0, 0, 1)
