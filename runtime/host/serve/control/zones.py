"""Zones: made, ended, looked at, changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from runtime.host.api import common_pb2
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon.errors import BadRequest, UnknownZone
from runtime.host.daemon.model import BootRequest, Update, ZoneInfo
from runtime.host.images.model import Assembled
from runtime.host.serve.answers import NotServed
from runtime.host.serve.control import messages, zonespec
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.methods import refused, streaming, unary


class ZoneMethods:
    """Of ControlService."""

    _context: Context

    @unary
    async def CreateZone(self, request: pb.CreateZoneRequest) -> pb.CreateZoneReply:
        wanted = zonespec.check(request.spec)
        parts = await self._parts(wanted)
        request.spec.name = wanted.name
        async with self._reservation(request.spec.network_options) as reservation:
            zone = await self._context.boots.begin(
                BootRequest(
                    bundle=zonespec.bundle(wanted, parts),
                    ports=(),
                    labels=messages.spec_label(request.spec),
                    reservation=reservation,
                )
            )
        return pb.CreateZoneReply(zone_id=zone.id)

    @contextlib.asynccontextmanager
    async def _reservation(self, options: common_pb2.ZoneNetworkOptionsSpec) -> AsyncIterator[str]:
        """The one to use: of a zone that is to retain its addresses without having named any, a new one.

        Effects: the options say which, so that it can be found; a new one goes again where the zone cannot be made.
        """
        if options.assume_network_reservation or not options.retain_network_reservation:
            yield options.assume_network_reservation
            return
        manager = self._context.manager
        made = await manager.create_reservation()
        options.assume_network_reservation = made.id
        try:
            yield made.id
        except BaseException:
            await manager.destroy_reservation(made.id)
            raise

    async def _parts(self, wanted: zonespec.Wanted) -> Assembled:
        """What it boots from. Raises NoPlatform, and what assembling raises."""
        own = self._context.platform.load() if wanted.kernel and wanted.init else self._context.platform.need()
        if not wanted.custom:
            assert own is not None
            return zonespec.default_parts(own)
        parts = await self._context.tasks.do(wanted.assemble_work(own))
        assert isinstance(parts, Assembled)
        return parts

    @unary
    async def DestroyZone(self, request: pb.DestroyZoneRequest) -> pb.DestroyZoneReply:
        zone = await self._context.manager.remove(request.zone_id, force=True)
        if zone.reservation and not messages.zone_spec(zone).network_options.retain_network_reservation:
            with contextlib.suppress(UnknownZone):
                await self._context.manager.destroy_reservation(zone.reservation)
        return pb.DestroyZoneReply()

    @unary
    async def GetZone(self, request: pb.GetZoneRequest) -> pb.GetZoneReply:
        zone = await self._context.manager.get(request.zone_id, fresh=True)
        return pb.GetZoneReply(zone=messages.zone_message(zone, await self._host_id()))

    @streaming
    async def ListZones(self, request: pb.ListZonesRequest) -> AsyncIterator[pb.ListZonesReply]:
        host = await self._host_id()
        yield pb.ListZonesReply(
            zones=[messages.zone_message(zone, host) for zone in self._context.manager.list_zones()]
        )

    @unary
    async def ResolveZoneId(self, request: pb.ResolveZoneIdRequest) -> pb.ResolveZoneIdReply:
        found = await self._resolve(request.name)
        return pb.ResolveZoneIdReply(zone_id=found.id if found else "")

    @unary
    async def ResolveZoneIds(self, request: pb.ResolveZoneIdsRequest) -> pb.ResolveZoneIdsReply:
        found = await self._resolve(request.name)
        return pb.ResolveZoneIdsReply(zone_ids=[found.id] if found else [])

    async def _resolve(self, name: str) -> ZoneInfo | None:
        try:
            return await self._context.manager.get(name)
        except UnknownZone:
            return None

    @unary
    async def UpdateZoneResources(self, request: pb.UpdateZoneResourcesRequest) -> pb.UpdateZoneResourcesReply:
        zone = await self._context.manager.get(request.zone_id)
        await self._context.manager.update(zone.id, change(zone, request))
        return pb.UpdateZoneResourcesReply()

    @unary
    async def ReadZoneMetrics(self, request: pb.ReadZoneMetricsRequest) -> pb.ReadZoneMetricsReply:
        manager = self._context.manager
        metrics, processes = await asyncio.gather(manager.metrics(request.zone_id), manager.processes(request.zone_id))
        return pb.ReadZoneMetricsReply(root=messages.metric_tree(metrics, processes))

    MonitorZoneKernelEvents = refused(
        "no probe in the zone's kernel", "ReadZoneMetrics lists a zone's processes, WatchEvents what becomes of it"
    )

    async def _host_id(self) -> str:
        return (await self._context.manager.status()).host_id


def change(zone: ZoneInfo, request: pb.UpdateZoneResourcesRequest) -> Update:
    """What is asked of a zone; what is 0 stays.

    Raises:  BadRequest for a maximum, which is fixed when a zone is made; NotServed for a policy that nobody follows.
    """
    asked, first = request.resources, messages.zone_spec(zone).initial_resources
    if asked.adjustment_policy == common_pb2.ZONE_RESOURCE_ADJUSTMENT_POLICY_DYNAMIC:
        hint = "nothing moves a zone's memory but this call"
        raise NotServed(f"zone {zone.name}: resources.adjustment_policy", got="DYNAMIC", hint=hint)
    for field, given, fixed in (
        ("max_memory", asked.max_memory, zone.memory_max_mib),
        ("max_cpus", asked.max_cpus, zone.vcpus_max),
    ):
        if given not in (0, fixed):
            raise BadRequest(f"zone {zone.name}: {field}", expected=f"{fixed}, as it was made with", got=str(given))
    for field, given, least in (
        ("target_memory", asked.target_memory, asked.min_memory or first.min_memory),
        ("target_cpus", asked.target_cpus, asked.min_cpus or first.min_cpus),
    ):
        if given and given < least:
            raise BadRequest(f"zone {zone.name}: {field}", expected=f"at least {least}", got=str(given))
    return Update(memory_mib=asked.target_memory or None, vcpus=asked.target_cpus or None)
