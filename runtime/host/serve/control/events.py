"""What happens: changes of zones and workloads, and the frames of the channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from runtime.host.api import common_pb2
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon.errors import StateDamaged, UnknownZone
from runtime.host.daemon.model import Event
from runtime.host.serve.answers import request_of
from runtime.host.serve.control import messages
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.methods import joined, streaming
from runtime.host.serve.control.snoop import SnoopQueue

ZONE_EVENTS, WORKLOAD_EVENTS = "zone.", "workload."
WORKLOAD = "workload"  # the attribute of a workload's event that has its id


class EventMethods:
    """Of ControlService."""

    _context: Context

    @joined
    async def WatchEvents(self, stream: Any) -> None:
        await request_of(stream)
        manager = self._context.manager
        token = await manager.event_token()
        await stream.send_initial_metadata()  # tells the client that from here on nothing is missed
        changes = Changes(self._context, (await manager.status()).host_id)
        async for event in manager.events(since=token, follow=True):
            if (reply := await changes.reply(event)) is not None:
                await stream.send_message(reply)

    @streaming
    async def SnoopIdm(self, request: pb.SnoopIdmRequest) -> AsyncIterator[pb.SnoopIdmReply]:
        queue = SnoopQueue()
        reader = asyncio.create_task(queue.fill(self._context.manager.snoop()))
        batch: asyncio.Future[pb.SnoopIdmReply] | None = None
        try:
            while True:
                batch = asyncio.ensure_future(queue.batch())
                await asyncio.wait({reader, batch}, return_when=asyncio.FIRST_COMPLETED)
                if reader.done():  # by a fault of ours: the caller is to see it, and not to wait for ever
                    reader.result()
                    return
                yield await batch
        finally:
            ended: list[asyncio.Future[Any]] = [reader] if batch is None else [reader, batch]
            for task in ended:
                task.cancel()
            await asyncio.wait(ended)


class Changes:
    """Events of the core as whole objects; those that are gone are told as they were last."""

    def __init__(self, context: Context, host_id: str) -> None:
        self._context, self._host_id = context, host_id
        self._zones = {zone.id: messages.zone_message(zone, host_id) for zone in context.manager.list_zones()}
        self._workloads = {
            workload.id: messages.workload_message(workload) for workload in context.manager.list_workloads()
        }

    async def reply(self, event: Event) -> pb.WatchEventsReply | None:
        """None for what is no change of a zone or workload, or of one nobody knows."""
        if event.kind.startswith(ZONE_EVENTS):
            zone = await self._zone(event.zone_id)
            return zone and pb.WatchEventsReply(zone_changed=pb.ZoneChangedEvent(zone=zone))
        if event.kind.startswith(WORKLOAD_EVENTS):
            workload = self._workload(event.attributes.get(WORKLOAD, ""))
            return workload and pb.WatchEventsReply(workload_changed=pb.WorkloadChangedEvent(workload=workload))
        return None

    async def _zone(self, zone_id: str) -> common_pb2.Zone | None:
        try:
            zone = messages.zone_message(await self._context.manager.get(zone_id), self._host_id)
        except (UnknownZone, StateDamaged):
            last = self._zones.pop(zone_id, None)
            return None if last is None else messages.zone_gone(last)
        self._zones[zone_id] = zone
        return zone

    def _workload(self, workload_id: str) -> common_pb2.Workload | None:
        try:
            workload = messages.workload_message(self._context.manager.get_workload(workload_id))
        except UnknownZone:
            last = self._workloads.pop(workload_id, None)
            return None if last is None else messages.workload_gone(last)
        self._workloads[workload_id] = workload
        return workload
