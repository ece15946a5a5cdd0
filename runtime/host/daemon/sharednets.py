"""Networks that zones share.

A network is there, with a namespace and an engine, while a zone is in it: it is made for the first one and goes with
the last. `zone net create` keeps its name and its addresses beyond that, until `zone net rm`. It has a ledger of its
own, as it outlives the runs of the zones in it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

from runtime.errors import RuntimeFault
from runtime.host.daemon import addressing, rows
from runtime.host.daemon.errors import BadRequest, NameTaken, StateDamaged, UnknownNetwork, WrongState
from runtime.host.daemon.model import NetworkInfo
from runtime.host.daemon.signals import Changes, until
from runtime.host.ledger import Ledger
from runtime.net.addresses import ZoneAddresses, plan_addresses
from runtime.net.errors import AddressesExhausted
from runtime.net.plan import check_mtu

if TYPE_CHECKING:
    from runtime.host.daemon.core import Core
    from runtime.host.daemon.edge import Segment
    from runtime.host.daemon.reconcile import Head
    from runtime.host.daemon.zone import Zone

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_KIND = "network"  # of the first record of its ledger
TAKEN_OVER_S = 30.0  # what a boot waits for zones of its network that are to be taken over


class Seat(NamedTuple):
    """A zone's name and its number in its network."""

    zone: str
    host: int


@dataclass
class SharedNetwork:
    """One network.

    kept:     until somebody removes it, zones or not.
    seats:    who is in it, by their runs' uuids. awaited: those of them that are to be taken over yet from the zoned
              before; until then nobody here knows what its engine and its rules have of them.
    segment:  while it is up. ledger: and until all of it is gone.
    found:    it is up, and is to be taken over yet from the zoned before. settled: what was found in it is known, so
              that its engine is cared for as soon as it is taken over.
    """

    name: str
    index: int
    mtu: int
    kept: bool = False
    seats: dict[str, Seat] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    segment: Segment | None = None
    ledger: Ledger | None = None
    found: bool = False
    settled: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    changes: Changes = field(default_factory=Changes)


# -- what people do ----------------------------------------------------------------------------------------------------


async def create(core: Core, name: str, mtu: int) -> NetworkInfo:
    """See Manager.create_network."""
    _check(name, mtu)
    known = core.networks.get(name)
    if known is not None:
        raise NameTaken(f"network {name}", expected="the name free", got="there is one of that name")
    network = core.networks[name] = SharedNetwork(name, addressing.free_index(core), mtu, kept=True)
    try:
        await core.write_or_refuse(rows.save_network(name, network.index, mtu, core.clock.now()))
    except StateDamaged:
        core.networks.pop(name)
        raise
    return describe(core, network)


async def remove(core: Core, name: str) -> None:
    """See Manager.remove_network."""
    network = core.networks.get(name)
    if network is None:
        got = ", ".join(sorted(core.networks)) or "none"
        raise UnknownNetwork(f"network {name[:80]}", expected="one that is shared", got=got)
    if network.seats:
        inside = ", ".join(zones_in(core, network)) or "a zone that is ending"
        raise WrongState(f"network {name}", expected="no zone in it", got=inside, hint="stop them first")
    await core.write_or_refuse(rows.drop_network(name))
    network.kept = False
    await _settle(core, network)


def describe(core: Core, network: SharedNetwork) -> NetworkInfo:
    """For people; without counters. One of pools that this host had before has no addresses."""
    zones = tuple(zones_in(core, network))
    try:
        planned = plan_addresses(network.index)
    except AddressesExhausted:
        return NetworkInfo(network.name, "", "", "", "", zones=zones, shared=True)
    ipv4, ipv6 = (str(ip_network(text)) for text in planned.subnets)
    return NetworkInfo(
        name=network.name,
        ipv4=ipv4,
        ipv6=ipv6,
        gateway4=planned.gateway4,
        gateway6=planned.gateway6,
        zones=zones,
        shared=True,
    )


def zones_in(core: Core, network: SharedNetwork) -> list[str]:
    """The names of the zones that run in it."""
    return sorted(zone.name for zone in core.zones.values() if zone.run is not None and zone.run.uuid in network.seats)


# -- runs --------------------------------------------------------------------------------------------------------------


def place(core: Core, zone: Zone, uuid: str) -> ZoneAddresses:
    """Addresses in the network a zone wants, for one run of it; the network is known from here on.

    Raises:  BadRequest, NameTaken, AddressTaken, AddressesExhausted.
    """
    request, mtu, static = zone.request, zone.bundle.network.mtu, zone.bundle.network.address
    name = request.network_name
    _check(name, mtu)
    if request.reservation:
        raise BadRequest(f"zone {zone.name}", expected="a reservation or a shared network", got="both")
    network = core.networks.get(name)
    if network is None:
        index = addressing.index_for(core, zone.name, static)
        network = core.networks[name] = SharedNetwork(name, index, mtu)
    if network.mtu != mtu:
        hint = "key network.mtu of the zone, --mtu of zone run, or --mtu of zone net create"
        subject = f"zone {zone.name} in network {name}"
        raise BadRequest(subject, expected=f"its MTU, {network.mtu}", got=str(mtu), hint=hint)
    _check_name_in(network, zone.name)
    host = addressing.host_for(core, zone.name, network, static)
    network.seats[uuid] = Seat(zone.name, host)
    return plan_addresses(network.index, host=host)


def _check_name_in(network: SharedNetwork, zone: str) -> None:
    """Raises NameTaken for a name that is another's to DNS, which knows no case of letters (RFC 4343)."""
    for other in sorted({seat.zone for seat in network.seats.values()} - {zone}):
        if other.lower() == zone.lower():
            expected = "a name that no zone in it has in any case of letters"
            raise NameTaken(f"zone {zone} in network {network.name}", expected=expected, got=f"that of zone {other}")


async def raise_up(core: Core, name: str) -> Segment:
    """The network's segment, made if need be; some zone has a place in it.

    Whoever comes into it has its rules loaded as a whole, and those of a zone that is to be taken over are not known
    yet: it would be cut off. So they are waited for.
    Raises:  WrongState, and what making it raises.
    """
    network = core.networks[name]
    if not await until(network.changes, lambda: not network.awaited, core.clock, TAKEN_OVER_S):
        waiting = ", ".join(sorted(network.seats[uuid].zone for uuid in network.awaited & network.seats.keys()))
        expected = "its zones to be taken over from the zoned before"
        raise WrongState(f"network {name}", expected=expected, got=f"not yet {waiting}", hint="run again later")
    async with network.lock:
        await core.thread(_take_over, core, network)
        if network.segment is None:
            await _clear(core, network)
            await core.thread(_make, core, network)
        assert network.segment is not None
        return network.segment


def _make(core: Core, network: SharedNetwork) -> None:
    ledger = network.ledger = core.network_ledgers.create(network.name)
    ledger.record(_KIND, boot_id=core.boot_id, name=network.name, index=network.index, mtu=network.mtu)
    segment = core.edge.segment(network.name, plan_addresses(network.index), network.mtu, ledger)
    segment.create()
    network.segment = segment  # here, not by whoever waits: they may have been cancelled
    core.edge.care_for(segment)


async def release(core: Core, uuid: str) -> None:
    """A run has given its place back; harmless for one that had none."""
    for network in list(core.networks.values()):
        if network.seats.pop(uuid, None) is not None:
            await _settle(core, network)
            await _await_no_more(core, network, uuid)


async def reap(core: Core) -> None:
    """Go on with what could not be taken down."""
    for network in list(core.networks.values()):
        if network.ledger is not None and network.segment is None and not network.seats:
            await _settle(core, network)
        elif network.segment is not None and _is_left(core, network):
            await _end_left(core, network)


def _is_left(core: Core, network: SharedNetwork) -> bool:
    """Is nobody in it but runs that have ended, of which something is not gone yet?"""
    return network.seats.keys() <= core.unfinished.keys()


async def _end_left(core: Core, network: SharedNetwork) -> None:
    """An engine that does not answer never lets go of a zone: where it serves nobody, it goes before they do."""
    async with network.lock:
        if network.segment is not None and _is_left(core, network):
            segment, network.segment = network.segment, None
            await _as_far_as_it_goes(network.name, core.thread(_take_down, core, segment))


async def _settle(core: Core, network: SharedNetwork) -> None:
    """Take down what nobody is in, and forget what nobody keeps."""
    async with network.lock:
        if network.seats:
            return
        if network.segment is not None:
            segment, network.segment = network.segment, None
            await _as_far_as_it_goes(network.name, core.thread(_take_down, core, segment))
        await _as_far_as_it_goes(network.name, _clear(core, network))
        needed = network.kept or network.seats or network.ledger is not None  # what it has is known by it alone
        if not needed and core.networks.get(network.name) is network:
            del core.networks[network.name]


async def _as_far_as_it_goes(name: str, step: Awaitable[None]) -> None:
    """What fails, foreseen or not, is tried again with what is left: see `reap`."""
    try:
        await step
    except (RuntimeFault, OSError) as fault:
        log.error("network %s is not gone yet: %s", name, fault)
    except Exception:
        log.exception("network %s is not gone yet", name)


def _take_down(core: Core, segment: Segment) -> None:
    core.edge.care_no_more(segment)
    segment.destroy()


async def _clear(core: Core, network: SharedNetwork) -> None:
    """Walk the ledger of a network that is down, if there still is one."""
    if network.ledger is not None:
        await core.thread(_walk, core, network.ledger)
        network.ledger, network.found = None, False


def _walk(core: Core, ledger: Ledger) -> None:
    core.edge.teardown(ledger.records())
    ledger.close()


# -- a zoned that starts -----------------------------------------------------------------------------------------------


async def load(core: Core) -> None:
    """Know the networks that are kept, and take over those that are up, before the zones in them.

    One that cannot be taken over now is tried again with each of its zones: others do not wait for it.
    """
    for name, index, mtu in await core.database.read(rows.SELECT_NETWORKS):
        core.networks[name] = SharedNetwork(name, index, mtu, kept=True)
    for ledger in list(core.network_ledgers.all()):
        try:
            records = await core.thread(ledger.records)
        except OSError as error:
            log.error("network %s is left as it is: its ledger cannot be read: %s", ledger.name, error)
            continue
        first = records[0] if records else {}
        if first.get("kind") != _KIND or first.get("boot_id") != core.boot_id:
            ledger.close()  # of another boot, or cut off before anything was taken
            continue
        try:
            name, index, mtu = str(first["name"]), int(first["index"]), int(first["mtu"])
        except (KeyError, ValueError, TypeError) as error:
            log.error("network %s cannot be taken over, its ledger does not say what it is: %r", ledger.name, error)
            await _as_far_as_it_goes(ledger.name, core.thread(_walk, core, ledger))  # else the next zoned's
            continue
        network = core.networks.setdefault(name, SharedNetwork(name, index, mtu))
        network.index, network.mtu, network.ledger, network.found = index, mtu, ledger, True
        try:
            await core.thread(_take_over, core, network)
        except (RuntimeFault, OSError) as fault:
            log.warning("network %s is up, and is not taken over yet: %s", name, fault)
        except Exception:  # a defect of ours, or a record of another version: it costs this network
            log.exception("network %s is up, and is not taken over yet", name)


def _take_over(core: Core, network: SharedNetwork) -> None:
    """What is still to be taken over. Raises RuntimeFault, OSError; it goes on then. Blocking."""
    if not network.found:
        return
    assert network.ledger is not None
    segment = core.edge.segment(network.name, plan_addresses(network.index), network.mtu, network.ledger)
    if not segment.adopt(network.ledger.records()):
        log.error("network %s: its engine does not run", network.name)
    network.segment, network.found = segment, False
    if network.settled:
        core.edge.care_for(segment)


def hold(core: Core, head: Head) -> SharedNetwork | None:
    """Keep the place of a run that an earlier zoned began. None: it is in no shared one, or in one that is lost."""
    network = core.networks.get(head.request.network_name)
    if network is not None:
        network.seats[head.uuid] = Seat(head.name, head.host)
    return network


async def segment_of(core: Core, head: Head) -> Segment | None:
    """As `hold`, for the network's segment, taken over if need be. Raises what that raises."""
    network = hold(core, head)
    if network is None:
        return None
    async with network.lock:
        await core.thread(_take_over, core, network)
        return network.segment


async def settle(core: Core, runs: Iterable[str]) -> None:
    """When it is known which runs go on, or hold something still: give their networks' engines care, end the others."""
    wanted = set(runs)
    for network in list(core.networks.values()):
        network.seats = {uuid: seat for uuid, seat in network.seats.items() if uuid in wanted}
        network.settled = True
        if network.seats and (network.segment is not None or network.found):
            pending = {zone.run.uuid for zone in core.zones.values() if zone.run is not None and not zone.run.up}
            network.awaited = pending & network.seats.keys()
            await _forget_others(core, network)
            if network.segment is not None:
                await _care_for(core, network.name, network.segment)
        else:
            await _settle(core, network)


async def _care_for(core: Core, name: str, segment: Segment) -> None:
    try:
        await core.thread(core.edge.care_for, segment)
    except Exception:  # likewise
        log.exception("network %s: its engine is not replaced where it ends", name)


async def taken_over(core: Core, uuid: str) -> None:
    """A run has its place in its network again. An engine that was revived meanwhile has rules that leave it out."""
    for network in list(core.networks.values()):
        if uuid in network.awaited and network.segment is not None:
            try:
                await core.thread(network.segment.renew_rules)
            except (RuntimeFault, OSError) as fault:
                log.warning("network %s: %s", network.name, fault)
            await _await_no_more(core, network, uuid)


async def _await_no_more(core: Core, network: SharedNetwork, uuid: str) -> None:
    if uuid in network.awaited:
        network.awaited.discard(uuid)
        network.changes.tell()
        await _forget_others(core, network)


async def _forget_others(core: Core, network: SharedNetwork) -> None:
    """Have its engine end what it has of nobody's, once all that it may be of are known."""
    async with network.lock:
        if network.segment is None or network.awaited:
            return
        try:
            await core.thread(network.segment.forget_others)
        except (RuntimeFault, OSError) as fault:  # it has no engine; the next one knows no others
            log.warning("network %s: %s", network.name, fault)


async def leave(core: Core) -> None:
    """Let go of the networks, which go on without us."""
    for network in core.networks.values():
        if network.segment is not None:
            await core.thread(core.edge.care_no_more, network.segment)


def _check(name: str, mtu: int) -> None:
    if not NAME.fullmatch(name):
        expected = "a name of letters, digits, - and _, at most 63"
        raise BadRequest(f"network {name[:80]!r}", expected=expected, got="another")
    check_mtu(f"network {name}", mtu)
