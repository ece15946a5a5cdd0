"""Reservations: addresses kept for zones to come, over restarts of zoned and of the host."""

from __future__ import annotations

import uuid as uuids

from runtime.host.daemon import addressing
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import StateDamaged, UnknownZone, WrongState
from runtime.host.daemon.model import Reservation
from runtime.net.addresses import plan_addresses
from runtime.net.errors import AddressesExhausted


async def create(core: Core) -> Reservation:
    """See Manager.create_reservation."""
    reservation_id, index = str(uuids.uuid4()), addressing.free_index(core)
    core.reservations[reservation_id] = index
    sql = "INSERT INTO reservations (id, net_index, created) VALUES (?, ?, ?)"
    try:
        await core.write_or_refuse((sql, [reservation_id, index, core.clock.now()]))
    except StateDamaged:
        core.reservations.pop(reservation_id)
        raise
    return _describe(core, reservation_id)


async def destroy(core: Core, reservation_id: str) -> None:
    """See Manager.destroy_reservation."""
    if reservation_id not in core.reservations:
        raise UnknownZone(f"reservation {reservation_id[:80]}", got="no such reservation on this host")
    users = [zone.name for zone in core.zones.values() if zone.request.reservation == reservation_id]
    users += [unread.name for unread in core.unread.values() if unread.reservation == reservation_id]
    if users:  # one that has ended, too: started again, it is to have them again
        got = f"zone {users[0]} has its addresses"
        raise WrongState(f"reservation {reservation_id}", expected="it unused", got=got, hint="zone rm forgets it")
    await core.write_or_refuse(("DELETE FROM reservations WHERE id = ?", [reservation_id]))
    core.reservations.pop(reservation_id, None)


def every(core: Core) -> list[Reservation]:
    """See Manager.list_reservations."""
    return [_describe(core, reservation_id) for reservation_id in core.reservations]


def _describe(core: Core, reservation_id: str) -> Reservation:
    try:
        planned = plan_addresses(core.reservations[reservation_id])
    except AddressesExhausted:  # of pools that this host had before
        return Reservation(reservation_id, "", "", "", "", "", "", 0, 0)
    users = (zone.id for zone in core.zones.values() if zone.state.live and zone.request.reservation == reservation_id)
    return Reservation(
        id=reservation_id,
        ipv4=planned.zone4,
        ipv6=planned.zone6,
        mac=planned.zone_mac,
        gateway4=planned.gateway4,
        gateway6=planned.gateway6,
        gateway_mac=planned.gateway_mac,
        prefix4=planned.prefix4,
        prefix6=planned.prefix6,
        zone_id=next(users, ""),
    )
