"""Takes over a run that an earlier zoned began: its domain, its console, its network and ports; it does not notice.

What fails may go better the next time: xenstored that was slow, a host short of memory or of descriptors. A zone that
runs is not ended for that. Until it is taken over it is listed, its addresses, ports and devices are no others', and a
stop ends it.
"""

from __future__ import annotations

import logging
from functools import partial

from runtime.boot.doors import DomainInfo
from runtime.boot.errors import TeardownFault
from runtime.errors import RuntimeFault
from runtime.host.daemon import claims, exits, sharednets, shares
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import NotAdoptable
from runtime.host.daemon.heldshares import HeldShares
from runtime.host.daemon.model import ExitStatus, PortRule, State
from runtime.host.daemon.reconcile import Head, head_of
from runtime.host.daemon.signals import until
from runtime.host.daemon.zone import Run, StopOrder, Zone
from runtime.host.ledger import Ledger, Record
from runtime.net.addresses import plan_addresses
from runtime.net.teardown import current

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


def begun(core: Core, zone: Zone, head: Head, ledger: Ledger, records: list[Record]) -> Run:
    """The run as its ledger has it, of which nothing is taken over yet."""
    console = core.settings.state_dir / "logs" / head.id / "console"
    run = Run(head.uuid, ledger, plan_addresses(head.index, host=head.host), console, adopted=True)
    run.devices = claims.of_records(records)
    sharednets.hold(core, head)
    if not zone.state.up:
        zone.state, zone.started = State.RUNNING, zone.started or core.clock.now()
    zone.ports = zone.ports or _ports_of(records)
    run.ready = zone.state is State.READY
    run.since = core.clock.monotonic() - max(0.0, core.clock.now() - zone.started)
    return run


async def until_taken(core: Core, zone: Zone, run: Run) -> None:
    """Try again and again; on return run.up, or run.reason or run.told says how it ended instead.

    A stop is its init's as soon as there is a way to ask it; without one the zone is ended when its time is over.
    """
    pause_s, ends = FIRST_PAUSE_S, 0.0
    order: StopOrder | None = None
    while not (run.up or run.reason or run.told):
        now = core.clock.monotonic()
        if zone.stop is not None and zone.stop is not order:
            ends = now + zone.stop.timeout_s
        order = zone.stop
        if order is not None and now >= ends:
            run.told = exits.by_signal(9)
            return
        wait_s = min(pause_s, ends - now) if order is not None else pause_s
        await until(zone.changes, partial(_other_order, zone, order), core.clock, wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        await attempt(core, zone, run)


def _other_order(zone: Zone, order: StopOrder | None) -> bool:
    return zone.stop is not order


async def attempt(core: Core, zone: Zone, run: Run) -> None:
    """Take it over, once: run.up where that was done, run.reason or run.told where it has ended, or cannot go on."""
    try:
        records = await core.thread(run.ledger.records)
        await _take(core, zone, run, records)
    except (NotAdoptable, TeardownFault) as fault:
        log.error("zone %s cannot be adopted, and is ended: %s", zone.name, fault)
        run.told = exits.failed("adoption", str(fault))
    except (RuntimeFault, OSError) as fault:
        if not await _has_ended(core, run):
            log.warning("zone %s runs, and is not taken over yet: %s", zone.name, fault)
    else:
        if run.domain is None:
            await _has_ended(core, run)
            return
        assert core.deaths is not None
        run.up = True
        core.deaths.add(run.domain.domid, run.domain.uuid)
        await sharednets.taken_over(core, run.uuid)
        await core.save(zone, "zone.adopted", request=True, domid=str(run.domain.domid))


async def _take(core: Core, zone: Zone, run: Run, records: list[Record]) -> None:
    """All of it, or nothing; run.domain is None where Xen has it no more."""
    head = head_of(records)
    if head is None:
        raise NotAdoptable(f"zone {zone.name}", expected="a ledger that says whose run it is", got="another one")
    segment = await sharednets.segment_of(core, head)
    if head.request.network_name and segment is None:
        expected = f"its network {head.request.network_name} up"
        raise NotAdoptable(f"zone {head.name}", expected=expected, got="it is not")

    def take() -> bool:
        run.console.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        run.domain = core.edge.adopt(records)
        if run.domain is None:
            return False
        isolated = head.request.is_isolated
        run.network = core.edge.network(
            head.name, run.addresses, zone.bundle.network, run.ledger, segment=segment, isolated=isolated
        )
        if not run.network.adopt(records):
            log.error("zone %s: the engine of its network does not serve, a new one takes its place", head.name)
        shares.begin(core, zone, run, adopted=True)
        return True

    try:
        if await core.thread(take):
            assert run.network is not None
            run.devices = await core.thread(claims.again, zone.bundle, records)
            zone.held.take_back(zone.ports, run.network.published())
            await core.thread(core.edge.care_for, run.network)
    except BaseException:
        await core.thread(_let_go, core, run)
        raise


def _let_go(core: Core, run: Run) -> None:
    """Of what was taken over; all of it goes on. The network stays the run's, to be ended with it."""
    if run.network is not None:
        core.edge.care_no_more(run.network)
    run.shares.let_go()
    run.shares = HeldShares()
    if run.domain is not None:
        run.domain.let_go()
        run.domain = None


async def _has_ended(core: Core, run: Run) -> bool:
    """Does Xen say that it lives no more?"""
    try:
        info = (await core.thread(core.edge.domains)).get(run.uuid)
    except RuntimeFault:
        return False
    if info is not None and not info.dying and not info.reason:
        return False
    run.reason = (info.reason if info is not None else "") or "destroyed"
    run.told = await core.thread(exit_of_gone, core, info)
    return True


def exit_of_gone(core: Core, info: DomainInfo | None) -> ExitStatus:
    """How a domain that ended while nobody looked ended: its tree is there as long as Xen keeps its remains."""
    if info is None:
        return exits.failed("lost", "it ended while zoned was away; nobody saw how", code=255)
    try:
        told = exits.from_xenstore(core.edge.last_words(info).exit)
    except RuntimeFault as fault:
        log.warning("domain %d: %s", info.domid, fault)
        told = None
    if info.reason == "crash" and (told is None or told.clean):
        return exits.crashed("crash")
    return told or exits.from_xen(info.reason or "destroyed")


def _ports_of(records: list[Record]) -> tuple[PortRule, ...]:
    """What the ledger says, without what was published for a while."""
    return tuple(
        PortRule(
            int(record["zone_port"]),
            str(record["address"]),
            int(record["port"]),
            protocol=str(record.get("protocol", "tcp")),
        )
        for record in current(records)
        if record["kind"] == "net.listener"
    )
