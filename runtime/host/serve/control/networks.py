"""Networks: addresses kept for zones to come, and a zone's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

from runtime.host.api import control_pb2 as pb
from runtime.host.serve.control import messages
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.methods import streaming, unary
from runtime.host.serve.control.networkconfig import network_change


class NetworkMethods:
    """Of ControlService."""

    _context: Context

    @unary
    async def CreateNetworkReservation(
        self, request: pb.CreateNetworkReservationRequest
    ) -> pb.CreateNetworkReservationReply:
        reservation = await self._context.manager.create_reservation()
        return pb.CreateNetworkReservationReply(reservation=messages.reservation_message(reservation))

    @unary
    async def DestroyNetworkReservation(
        self, request: pb.DestroyNetworkReservationRequest
    ) -> pb.DestroyNetworkReservationReply:
        await self._context.manager.destroy_reservation(request.reservation_id)
        return pb.DestroyNetworkReservationReply()

    @streaming
    async def ListNetworkReservations(
        self, request: pb.ListNetworkReservationsRequest
    ) -> AsyncIterator[pb.ListNetworkReservationsReply]:
        reservations = map(messages.reservation_message, self._context.manager.list_reservations())
        yield pb.ListNetworkReservationsReply(reservations=reservations)

    @unary
    async def ConfigureZoneNetwork(self, request: pb.ConfigureZoneNetworkRequest) -> pb.ConfigureZoneNetworkReply:
        zone = await self._context.manager.get(request.zone_id)
        await self._context.manager.configure_network(zone.id, network_change(zone, request.config))
        return pb.ConfigureZoneNetworkReply()
