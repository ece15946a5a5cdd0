"""A zoned without Xen: the Host service on a unix socket, with zones that are scripts.

    with FakeZoned(path) as zoned:
        zoned.add("web", image="docker://docker.io/library/nginx:1.27", ports=[(8080, 80)])
        zoned.programs["true"] = lambda run: 0

Answers as zoned would, in a thread with a loop of its own; `calls` has every request as (method, message).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import SentenceError
from runtime.host.api import host_pb2 as pb
from runtime.host.api.host_grpc import HostBase
from runtime.host.serve.listener import Listener
from support.fakecontrol import Control
from support.fakenetworks import Networks
from support.fakeprocesses import Processes, Program, Run, Unattended
from support.fakerefusals import Refused, UnknownZone, method


class FakeZoned:
    """See above. Not started until it is entered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zones: dict[str, Any] = {}
        self.logs: dict[str, list[tuple[float, str, bytes]]] = {}
        self.console_alone: set[str] = set()  # zones without an agent
        self.trees: dict[str, Path] = {}  # a zone's root, as a directory here
        self.settings: dict[str, dict[str, str]] = {}  # of a zone's kernel
        self.events: list[Any] = []
        self.programs: dict[str, Program] = {}
        self.calls: list[tuple[str, Any]] = []
        self.missing: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.metrics: dict[str, list[tuple[str, float, str]]] = {}
        self.processes: dict[str, list[Any]] = {}
        self.networks: list[Any] = []
        self.flows: list[Any] = []
        self.capture: list[Any] = []  # the pieces of every capture, which then ends, or goes on for ever
        self.capture_goes_on = False
        self.snooped: list[Any] = []  # the replies of every look at the channels, which then ends
        self.findings: list[Any] = []
        self.xen_said = ""
        self.boot_error: SentenceError | None = None
        self.end_at_once = b""  # what workloads say, which end with 4 then
        self.awaited: set[str] = set()  # names of zones whose booter has still to attach
        self.hold_boots = False  # the domain runs, and nothing more comes
        self.cancelled_boots: list[str] = []
        self.on_call: Callable[[str], object] = lambda method: None
        self.changed: asyncio.Condition
        self.called: asyncio.Event  # set, and cleared at once, by every call
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    def __enter__(self) -> FakeZoned:
        self._thread.start()
        self.wait(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.wait(self.drop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(120)
        self._loop.close()

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    async def _start(self) -> None:
        self.changed, self.called = asyncio.Condition(), asyncio.Event()
        self._server: Listener | None = Listener([Servicer(self), Control(self)])
        await self._server.start(path=str(self.path))

    async def drop(self) -> None:
        """End every connection, as a zoned that is killed does."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.end()

    # -- the script ------------------------------------------------------------------------------------------------

    def add(self, name: str, *, state: str = "ready", ports: tuple[tuple[int, int], ...] = (), **fields: Any) -> Any:
        """A zone there is."""
        now = time.time()
        started = {"created_unix_s": now - 301, "started_unix_s": now - 300} if state != "queued" else {}
        values: dict[str, Any] = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
            "name": name,
            "state": state,
            "domid": len(self.zones) + 1 if state in ("running", "ready") else 0,
            "image": "recipe:nginx",
            "memory_mib": 256,
            "memory_max_mib": 256,
            "vcpus": 1,
            "vcpus_max": 1,
            "addresses": [f"10.75.0.{len(self.zones) + 2}/16"],
            "network": "default",
            "ports": [
                pb.PortRule(
                    host_address="127.0.0.1",
                    host_port=outer,
                    address="127.0.0.1",
                    port=outer,
                    zone_port=inner,
                    protocol="tcp",
                )
                for outer, inner in ports
            ],
            **started,
            **fields,
        }
        self.zones[name] = zone = pb.ZoneInfo(**values)
        return zone

    def find(self, text: str) -> Any:
        found = [
            zone
            for zone in self.zones.values()
            if text in (zone.name, zone.id) or (len(text) >= 3 and zone.id.startswith(text))
        ]
        if len(found) != 1:
            raise UnknownZone(f"zone {text}", got="no such zone")
        return found[0]

    async def change(self, zone: Any, state: str, kind: str, **attributes: str) -> None:
        """A zone's new state, told to whoever watches."""
        zone.state = state
        event = pb.Event(
            token=str(len(self.events) + 1),
            unix_s=time.time(),
            kind=kind,
            zone_id=zone.id,
            zone=zone.name,
            attributes=attributes,
        )
        self.events.append(event)
        async with self.changed:
            self.changed.notify_all()

    async def end(self, zone: Any, code: int, *, text: str = "", signal: int = 0, oom: bool = False) -> None:
        """A zone ends."""
        zone.exit.CopyFrom(pb.ExitStatus(code=code, signal=signal, oom=oom, text=text or f"exit code {code}"))
        zone.finished_unix_s = time.time()
        zone.domid = 0
        await self.change(zone, "exited", "zone.exited", code=str(code))
        if zone.remove and zone.name not in self.awaited:
            self.zones.pop(zone.name, None)

    async def log(self, name: str, source: str, data: bytes) -> None:
        """A zone says something."""
        self.logs.setdefault(name, []).append((time.time(), source, data))
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)


class Servicer(Processes, Networks, HostBase):
    """The service over a FakeZoned's script."""

    def __init__(self, fake: FakeZoned) -> None:
        self.fake = fake

    @method
    async def GetStatus(self, stream: Any, request: Any) -> Any:
        running = [zone for zone in self.fake.zones.values() if zone.state in ("running", "ready")]
        return pb.HostStatus(
            host_id="6f1ed002-ab5d-4b4e-9c14-3d5a4b0e2f11",
            version="0.1.0",
            xen_version="4.17",
            kernel="6.1.0-40-amd64",
            python="3.11.2",
            free_memory_kib=1 << 20,
            total_memory_kib=2 << 20,
            cpus=2,
            zones_running=len(running),
            zones_total=len(self.fake.zones),
            missing=self.fake.missing,
            started_unix_s=time.time() - 3600,
            zoned_rss_kib=40 << 10,
            pid=417,
        )

    @method
    async def Check(self, stream: Any, request: Any) -> Any:
        return pb.CheckReply(
            findings=self.fake.findings,
            looked_at={"domain": len(self.fake.zones), "netns": 1},
            unseen=["event channels of other domains: this Xen shows them to no one"],
        )

    @method
    async def DiskUsage(self, stream: Any, request: Any) -> Any:
        rows = [("logs", len(self.fake.zones), 12 << 10, 4 << 10), ("blobs", 9, 73 << 20, 20 << 20)]
        return pb.DiskUsageReply(
            rows=[
                pb.DiskUsageRow(what=what, count=count, size_bytes=size, reclaimable_bytes=free)
                for what, count, size, free in rows
            ]
        )

    @method
    async def Prune(self, stream: Any, request: Any) -> Any:
        gone = [name for name, zone in self.fake.zones.items() if request.zones and zone.state in ("exited", "failed")]
        if not request.dry_run:
            for name in gone:
                del self.fake.zones[name]
        return pb.PruneReply(removed=[f"zone {name}" for name in gone], freed_bytes=4096 * len(gone))

    @method
    async def WatchEvents(self, stream: Any, request: Any) -> Any:
        fake = self.fake
        if request.since and not any(event.token == request.since for event in fake.events):
            raise Refused(f"event {request.since}", got="no such token", hint="--since start")
        at = 0 if request.from_start else len(fake.events)
        await stream.send_initial_metadata()
        if request.since:
            at = next(i for i, event in enumerate(fake.events) if event.token == request.since) + 1
        while True:
            for event in fake.events[at:]:
                if request.zone in ("", event.zone, event.zone_id):
                    await stream.send_message(event)
            at = len(fake.events)
            if not request.follow:
                return
            await fake.until(lambda at=at: len(fake.events) > at)

    @method
    async def FindBlobs(self, stream: Any, request: Any) -> Any:
        return pb.FindBlobsReply(missing=[blob.digest for blob in request.blobs if blob.digest not in self.fake.blobs])

    @method
    async def SetPlatform(self, stream: Any, request: Any) -> Any:
        return pb.SetPlatformReply()

    @method
    async def PutBlob(self, stream: Any, request: Any) -> Any:
        data = request.data
        async for part in stream:
            data += part.data
        self.fake.blobs[request.blob.digest] = data
        return pb.PutBlobReply()

    @method
    async def BootZone(self, stream: Any, request: Any) -> Any:
        fake = self.fake
        if fake.boot_error is not None:
            raise fake.boot_error
        bundle = json.loads(request.bundle)
        name = bundle["name"]
        if name in fake.zones and fake.zones[name].state not in ("exited", "failed"):
            raise Refused(f"zone {name}", got="it runs already", hint=f"zone stop {name} stops it")
        zone = fake.add(
            name,
            state="creating",
            manifest=request.manifest,
            memory_mib=bundle["resources"]["memory_mib"],
            memory_max_mib=bundle["resources"]["memory_max_mib"],
            vcpus=bundle["resources"]["vcpus"],
            vcpus_max=bundle["resources"]["vcpus_max"],
            command=bundle["process"]["argv"],
            tty=bundle["process"]["tty"],
            remove=request.remove,
            labels=dict(request.labels),
            restart=request.restart,
        )
        zone.ports.extend(request.ports)
        if request.attach:
            fake.awaited.add(name)
        for stage, state in (("queued", "queued"), ("build", "creating"), ("running", "running")):
            zone.domid = list(fake.zones).index(name) + 1 if state == "running" else 0
            await fake.change(zone, state, f"zone.{state}")
            await stream.send_message(pb.BootZoneReply(stage=stage, text=f"zone {name}: {stage}", zone=zone))
        if fake.end_at_once:
            fake.logs[name] = [(time.time(), "stdout", fake.end_at_once)]
            await fake.end(zone, 4)
            return None
        if fake.hold_boots:
            try:
                await fake.until(lambda: not fake.hold_boots)
            except asyncio.CancelledError:
                fake.cancelled_boots.append(name)
                await fake.end(zone, 137)
                raise
        if name in fake.programs and request.until_ready:  # else it waits for who attaches
            program = asyncio.ensure_future(self._workload(zone))
            zone_programs.add(program)
        await fake.change(zone, "ready", "zone.ready")
        await stream.send_message(pb.BootZoneReply(stage="ready", text=f"zone {name} is ready", zone=zone))
        return None

    async def _workload(self, zone: Any) -> None:
        run = Run(Unattended(self.fake, zone.name), pb.ProcessStart(zone=zone.name))
        await self.fake.end(zone, await self.fake.programs[zone.name](run))

    @method
    async def ListZones(self, stream: Any, request: Any) -> Any:
        shown = [zone for zone in self.fake.zones.values() if request.all or zone.state not in ("exited", "failed")]
        return pb.ListZonesReply(zones=shown)

    @method
    async def GetZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        if request.fresh:
            zone.memory_seen_mib, zone.vcpus_seen = zone.memory_mib - 24, zone.vcpus
        return zone

    @method
    async def StopZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        if zone.state not in ("exited", "failed"):
            await self.fake.end(zone, 0)
        return zone

    @method
    async def KillZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        if zone.state in ("exited", "failed"):
            raise Refused(f"zone {zone.name}", got="it does not run")
        if request.signal in (0, 9):
            await self.fake.end(zone, 137, text="killed by SIGKILL", signal=9)
        return zone

    @method
    async def RestartZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        if request.unless_live and zone.state not in ("exited", "failed", "stopping"):
            return zone
        zone.restarts += 1
        await self.fake.change(zone, "ready", "zone.ready")
        return zone

    @method
    async def RemoveZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        if zone.state not in ("exited", "failed") and not request.force:
            raise Refused(f"zone {zone.name}", got="it runs", hint=f"zone rm -f {zone.name} stops it first")
        del self.fake.zones[zone.name]
        await self.fake.change(zone, "exited", "zone.removed")
        return zone

    @method
    async def WaitZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        wanted = {"running": ("running", "ready"), "ready": ("ready",), "ports": ("ready",)}
        states = (*wanted.get(request.until, ()), "exited", "failed")
        waiting = self.fake.until(lambda: zone.state in states)
        try:
            await asyncio.wait_for(waiting, request.timeout_s or None)
        except TimeoutError:
            raise Refused(f"zone {zone.name}", expected="its end in time", got=zone.state, temporary=True) from None
        return zone

    @method
    async def UpdateZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        if request.HasField("memory_mib"):
            if request.memory_mib > zone.memory_max_mib:
                got = f"{request.memory_mib} MiB"
                raise Refused(f"zone {zone.name}", expected=f"at most {zone.memory_max_mib} MiB", got=got)
            zone.memory_mib = request.memory_mib
        if request.HasField("vcpus"):
            zone.vcpus = request.vcpus
        if request.HasField("restart"):
            zone.restart.CopyFrom(request.restart)
        if request.HasField("egress"):
            zone.egress[:] = request.egress.rules
        if request.HasField("bandwidth_bit_s"):
            zone.bandwidth_bit_s = request.bandwidth_bit_s
        zone.limits.update(request.limits)
        zone.ports.extend(request.add_ports)
        gone = [(rule.host_address, rule.host_port, rule.protocol) for rule in request.remove_ports]
        kept = [rule for rule in zone.ports if (rule.host_address, rule.host_port, rule.protocol) not in gone]
        del zone.ports[:]
        zone.ports.extend(kept)
        await self.fake.change(zone, zone.state, "zone.updated")
        return zone

    @method
    async def PauseZone(self, stream: Any, request: Any) -> Any:
        return await self._pause(request, paused=True)

    @method
    async def UnpauseZone(self, stream: Any, request: Any) -> Any:
        return await self._pause(request, paused=False)

    async def _pause(self, request: Any, *, paused: bool) -> Any:
        zone = self.fake.find(request.zone)
        if zone.state != "ready":
            raise Refused(f"zone {zone.name}", expected="its workload running", got=f"it is {zone.state}")
        zone.paused = paused
        await self.fake.change(zone, zone.state, "zone.paused" if paused else "zone.unpaused")
        return zone

    @method
    async def PingZone(self, stream: Any, request: Any) -> Any:
        self.fake.find(request.zone)
        return pb.PingZoneReply(round_trips_s=[0.001] * max(1, request.count))

    @method
    async def ReadMetrics(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        rows = self.fake.metrics.get(zone.name, [])
        return pb.ReadMetricsReply(
            metrics=[pb.Metric(name=name, value=value, unit=unit) for name, value, unit in rows], unix_s=time.time()
        )

    @method
    async def WatchMetrics(self, stream: Any, request: Any) -> Any:
        """Each row of a zone's figures, once; with how often they were asked for."""
        rows = self.fake.metrics.get(self.fake.find(request.zone).name, [])
        for name, value, unit in [*rows, ("interval_s", request.interval_s, "seconds")]:
            await stream.send_message(pb.ReadMetricsReply(metrics=[pb.Metric(name=name, value=value, unit=unit)]))


zone_programs: set[Any] = set()
