"""Which addresses a zone gets: its own, where it names one; a free one that no other zone names, else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from runtime.host.daemon.errors import BadRequest
from runtime.net.addresses import (
    ZONE_HOST,
    ZoneAddresses,
    allocate_host,
    allocate_index,
    parse_static,
    plan_addresses,
)
from runtime.net.errors import AddressTaken, BadAddress

if TYPE_CHECKING:
    from runtime.host.daemon.core import Core
    from runtime.host.daemon.sharednets import SharedNetwork


def check(address: str, subject: str) -> None:
    """Raises BadRequest for an address that no zone can have; "" is none."""
    if address:
        try:
            parse_static(address)
        except BadAddress as fault:
            raise BadRequest(f"{subject}, address", expected=fault.expected, got=repr(address)[:120]) from None


def private(core: Core, name: str, static: str, reservation: str) -> ZoneAddresses:
    """Addresses of a zone's private network. Raises BadRequest, AddressTaken, AddressesExhausted."""
    reserved = core.reservations.get(reservation)
    if reserved is not None:
        if static:
            raise BadRequest(f"zone {name}", expected="a reservation or an address of its own", got="both")
        running = {zone.run.addresses.index: zone.name for zone in core.zones.values() if zone.run is not None}
        if reserved in running or reserved in core.taking:
            got = f"zone {running.get(reserved, 'another')} has it"
            raise AddressTaken(f"reservation {reservation} of zone {name}", expected="it free", got=got)
        return plan_addresses(reserved)
    index = index_for(core, name, static)
    return plan_addresses(index, host=parse_static(static)[1] if static else ZONE_HOST)


def index_for(core: Core, name: str, static: str) -> int:
    """A network that nobody has: the one that an address is of, else any. Raises AddressTaken, AddressesExhausted."""
    if not static:
        return free_index(core, but=name)
    index = parse_static(static)[0]
    if index in core.used_indexes():
        ours = (f"network {each.name}" for each in core.networks.values() if each.index == index)
        holder = next(ours, "another network")
        hint = "name that network, or choose another address" if holder != "another network" else "choose another one"
        raise AddressTaken(f"address {static} of zone {name}", expected="its network free", got=holder, hint=hint)
    return index


def free_index(core: Core, *, but: str = "") -> int:
    """A network that nobody has, and that no zone `but` this one names an address of. Raises AddressesExhausted."""
    return allocate_index(core.used_indexes() | {index for index, _ in _named(core, but=but)})


def host_for(core: Core, name: str, network: SharedNetwork, static: str) -> int:
    """A zone's number in a shared network. Raises BadRequest, AddressTaken, AddressesExhausted."""
    used = {seat.host for seat in network.seats.values()}
    if not static:
        named = {host for index, host in _named(core, but=name) if index == network.index}
        return allocate_host(network.index, used | named)
    index, host = parse_static(static)
    if index != network.index:
        expected = f"one of {' or '.join(plan_addresses(network.index).subnets)}"
        raise BadRequest(f"zone {name} in network {network.name}, address", expected=expected, got=static)
    if host in used:
        raise AddressTaken(f"address {static} of zone {name}", expected="it free", got="another zone has it")
    return host


def _named(core: Core, *, but: str) -> Iterator[tuple[int, int]]:
    """What other zones that may come again name as their own."""
    for zone in core.zones.values():
        if zone.bundle.network.address and zone.name != but:
            with contextlib.suppress(BadAddress):  # of a pool that this host had before
                yield parse_static(zone.bundle.network.address)
