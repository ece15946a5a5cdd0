"""The Host service of host.proto over the core's manager: messages in and out, and no decisions.

Streams have back-pressure: the next answer is asked of the core when HTTP/2 has room for it, the next request is read
when the core has taken the one before. A client that goes away cancels what runs for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pipeline.jsonmodel import from_json
from pipeline.oci import parse_json
from runtime.host.api import host_pb2 as pb
from runtime.host.api.host_grpc import HostBase
from runtime.host.daemon.errors import BlobMissing
from runtime.host.daemon.manager import Manager, Session
from runtime.host.daemon.model import BootProgress, Output, ZoneInfo
from runtime.host.images.model import Platform
from runtime.host.images.platform import PlatformFile, blobs
from runtime.host.serve import convert
from runtime.host.serve.answers import BadMessage, NotServed, answering, next_request, request_of
from runtime.host.serve.joining import closing, ended, join, never

log = logging.getLogger(__name__)

COPY_CHUNK_BYTES = 256 * 1024
DEFAULT_MTU = 1500

Check = Callable[[], Awaitable[pb.CheckReply]]


class HostService(HostBase):
    """See host.proto.

    check:    the comparison of this host with its ledgers, where there is one.
    platform: keeps what zones without a kernel boot from, where this zoned has ControlService as well.
    """

    def __init__(self, manager: Manager, *, check: Check | None = None, platform: PlatformFile | None = None) -> None:
        self._manager, self._check, self._platform = manager, check, platform

    # -- the host ------------------------------------------------------------------------------------------------------

    async def GetStatus(self, stream: Any) -> None:
        async with answering(stream):
            await request_of(stream)
            await stream.send_message(convert.fill(pb.HostStatus(), await self._manager.status()))

    async def Check(self, stream: Any) -> None:
        async with answering(stream):
            await request_of(stream)
            if self._check is None:
                raise NotServed("method Check", got="this zoned has none")
            await stream.send_message(await self._check())

    async def DiskUsage(self, stream: Any) -> None:
        async with answering(stream):
            await request_of(stream)
            rows = await self._manager.disk_usage()
            await stream.send_message(pb.DiskUsageReply(rows=[convert.fill(pb.DiskUsageRow(), row) for row in rows]))

    async def Prune(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            pruned = await self._manager.prune(zones=request.zones, blobs=request.blobs, dry_run=request.dry_run)
            await stream.send_message(convert.fill(pb.PruneReply(), pruned))

    async def WatchEvents(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            since = request.since or ("" if request.from_start else await self._manager.event_token())
            await stream.send_initial_metadata()  # tells the client that from here on nothing is missed
            events = self._manager.events(
                since=since, from_start=request.from_start, follow=request.follow, zone=request.zone
            )
            async with closing(events):
                async for event in events:
                    await stream.send_message(convert.fill(pb.Event(), event))

    async def ListNetworks(self, stream: Any) -> None:
        async with answering(stream):
            await request_of(stream)
            networks = [convert.fill(pb.NetworkInfo(), network) for network in await self._manager.networks()]
            await stream.send_message(pb.ListNetworksReply(networks=networks))

    async def CreateNetwork(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            made = await self._manager.create_network(request.name, request.mtu or DEFAULT_MTU)
            await stream.send_message(convert.fill(pb.NetworkInfo(), made))

    async def RemoveNetwork(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            await self._manager.remove_network(request.name)
            await stream.send_message(pb.RemoveNetworkReply())

    async def ListFlows(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            zones = [convert.fill(pb.ZoneFlows(), found) for found in await self._manager.flows(request.zone)]
            await stream.send_message(pb.ListFlowsReply(zones=zones))

    async def CaptureNetwork(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            pieces = self._manager.capture(request.zone, convert.capture_request(request))
            async with closing(pieces):
                async for piece in pieces:
                    await stream.send_message(convert.fill(pb.CaptureNetworkReply(), piece))

    # -- blobs ---------------------------------------------------------------------------------------------------------

    async def FindBlobs(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            missing = await self._manager.find_blobs([convert.blob(blob) for blob in request.blobs])
            await stream.send_message(pb.FindBlobsReply(missing=list(map(str, missing))))

    async def PutBlob(self, stream: Any) -> None:
        async with answering(stream):
            first = await request_of(stream)
            if not first.HasField("blob"):
                raise BadMessage("request of PutBlob", expected="the blob's digest in the first message", got="none")
            await self._manager.put_blob(convert.blob(first.blob), _pieces(stream, first, "data"))
            await stream.send_message(pb.PutBlobReply())

    async def SetPlatform(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            if self._platform is None:
                raise NotServed("method SetPlatform", got="this zoned has no ControlService")
            document = parse_json(request.platform, subject="platform")
            platform = from_json(Platform, document, subject="platform")
            if missing := await self._manager.find_blobs(blobs(platform)):
                raise BlobMissing("platform", expected="its blobs on this host", got=f"no {missing[0]}")
            await asyncio.to_thread(self._platform.save, platform)
            await stream.send_message(pb.SetPlatformReply())

    # -- zones ---------------------------------------------------------------------------------------------------------

    async def BootZone(self, stream: Any) -> None:
        async with answering(stream):
            request = convert.boot_request(await request_of(stream))
            steps: asyncio.Queue[BootProgress | None] = asyncio.Queue()  # a boot has about ten
            boot = asyncio.ensure_future(self._manager.boot(request, steps.put_nowait))
            boot.add_done_callback(lambda _: steps.put_nowait(None))
            try:
                while (step := await steps.get()) is not None:
                    await stream.send_message(convert.fill(pb.BootZoneReply(), step))
                zone = await boot
            finally:
                await ended(boot)
            await stream.send_message(pb.BootZoneReply(stage=zone.state.value, zone=convert.zone_message(zone)))

    async def ListZones(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            zones = map(convert.zone_message, self._manager.list_zones(all=request.all))
            await stream.send_message(pb.ListZonesReply(zones=zones))

    async def GetZone(self, stream: Any) -> None:
        await self._zone(stream, lambda request: self._manager.get(request.zone, fresh=request.fresh))

    async def StopZone(self, stream: Any) -> None:
        await self._zone(stream, lambda request: self._manager.stop(request.zone, _timeout(request)))

    async def KillZone(self, stream: Any) -> None:
        await self._zone(stream, lambda request: self._manager.kill(request.zone, request.signal))

    async def RestartZone(self, stream: Any) -> None:
        def restart(request: Any) -> Awaitable[ZoneInfo]:
            return self._manager.restart(request.zone, _timeout(request), unless_live=request.unless_live)

        await self._zone(stream, restart)

    async def RemoveZone(self, stream: Any) -> None:
        await self._zone(stream, lambda request: self._manager.remove(request.zone, force=request.force))

    async def WaitZone(self, stream: Any) -> None:
        await self._zone(
            stream, lambda request: self._manager.wait(request.zone, request.until or "exited", _seconds(request))
        )

    async def UpdateZone(self, stream: Any) -> None:
        await self._zone(stream, lambda request: self._manager.update(request.zone, convert.update(request)))

    async def PauseZone(self, stream: Any) -> None:
        await self._zone(stream, lambda request: self._manager.pause(request.zone))

    async def UnpauseZone(self, stream: Any) -> None:
        await self._zone(stream, lambda request: self._manager.pause(request.zone, paused=False))

    async def _zone(self, stream: Any, ask: Callable[[Any], Awaitable[ZoneInfo]]) -> None:
        async with answering(stream):
            await stream.send_message(convert.zone_message(await ask(await request_of(stream))))

    # -- output and input ----------------------------------------------------------------------------------------------

    async def ReadLogs(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            entries = self._manager.logs(
                request.zone,
                follow=request.follow,
                since=request.since_unix_s,
                until=request.until_unix_s,
                tail=request.tail,
                console=request.console,
            )
            async with closing(entries):
                async for entry in entries:
                    await stream.send_message(pb.LogEntry(unix_s=entry.unix_s, stream=entry.stream, data=entry.data))

    async def AttachZone(self, stream: Any) -> None:
        async with answering(stream):
            start = await _start(stream)
            async with await self._manager.attach(convert.process_start(start)) as session:
                await join(stream, session, _take, convert.output_message)

    async def ExecZone(self, stream: Any) -> None:
        async with answering(stream):
            start = await _start(stream)
            async with await self._manager.exec(convert.process_start(start)) as session:
                enough = _started if start.detach else never
                await join(stream, session, _take, convert.output_message, enough=enough)

    async def CopyIn(self, stream: Any) -> None:
        async with answering(stream):
            first = await request_of(stream)
            chunks = _pieces(stream, first, "tar")
            left_out = await self._manager.copy_in(first.zone, first.path, chunks, workload=first.workload)
            await stream.send_message(pb.CopyInReply(xattrs_left_out=left_out))

    async def CopyOut(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            chunks = self._manager.copy_out(request.zone, request.path, workload=request.workload)
            async with closing(chunks):
                async for chunk in chunks:
                    for at in range(0, len(chunk), COPY_CHUNK_BYTES):
                        await stream.send_message(pb.CopyOutReply(tar=chunk[at : at + COPY_CHUNK_BYTES]))

    async def ReadMetrics(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            metrics = [convert.fill(pb.Metric(), metric) for metric in await self._manager.metrics(request.zone)]
            await stream.send_message(pb.ReadMetricsReply(metrics=metrics, unix_s=time.time()))

    async def WatchMetrics(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            if not math.isfinite(request.interval_s):
                raise BadMessage("interval_s", expected="a number of seconds", got=f"{request.interval_s}")
            answers = self._manager.watch_metrics(request.zone, request.interval_s)
            async with closing(answers):
                async for found in answers:
                    metrics = [convert.fill(pb.Metric(), metric) for metric in found]
                    await stream.send_message(pb.ReadMetricsReply(metrics=metrics, unix_s=time.time()))

    async def PingZone(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            trips = await self._manager.ping(request.zone, request.count)
            await stream.send_message(pb.PingZoneReply(round_trips_s=trips))

    async def ListProcesses(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            processes = await self._manager.processes(request.zone)
            found = [convert.fill(pb.ZoneProcess(), process) for process in processes]
            await stream.send_message(pb.ListProcessesReply(processes=found))

    async def Sysctl(self, stream: Any) -> None:
        async with answering(stream):
            request = await request_of(stream)
            value = request.value if request.HasField("value") else None
            found = await self._manager.sysctl(request.zone, request.key, value)
            await stream.send_message(pb.SysctlReply(value=found))


def _timeout(request: Any) -> float | None:
    return _seconds(request) if request.HasField("timeout_s") else None


def _seconds(request: Any) -> float:
    """Its timeout. Raises BadMessage for one that no timer has: a NaN among them disorders those of all others."""
    value = float(request.timeout_s)
    if not math.isfinite(value):
        subject = f"request about zone {request.zone}, timeout_s"
        raise BadMessage(subject, expected="a number of seconds", got=f"{value}")
    return value


async def _start(stream: Any) -> pb.ProcessStart:
    first = await request_of(stream)
    if first.WhichOneof("what") != "start":
        raise BadMessage("first request of a process", expected="its start", got=str(first.WhichOneof("what")))
    start: pb.ProcessStart = first.start
    return start


async def _pieces(stream: Any, first: Any, field: str) -> AsyncIterator[bytes]:
    message = first
    while message is not None:
        if data := getattr(message, field):
            yield data
        message = await next_request(stream)


async def _take(message: pb.ProcessInput, session: Session) -> None:
    match message.WhichOneof("what"):
        case "stdin":
            await session.write_stdin(message.stdin)
        case "close_stdin":
            await session.close_stdin()
        case "resize":
            await session.resize(convert.terminal_size(message.resize))
        case "signal":
            await session.signal(message.signal)
        case other:
            raise BadMessage("request of a process", expected="input, a size or a signal", got=str(other))


def _started(output: Output) -> bool:
    return output.kind == "started"
