"""Acts on what a starting zoned finds: adopts what runs, ends what is unfinished, starts what is wanted."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from runtime.boot.doors import DomainInfo
from runtime.errors import RuntimeFault
from runtime.host.daemon import (
    claims,
    ending,
    exits,
    growth,
    life,
    policy,
    rows,
    sharednets,
    takeover,
    unread,
)
from runtime.host.daemon.core import Core, Unfinished
from runtime.host.daemon.model import ExitStatus, State
from runtime.host.daemon.reconcile import Fate, Head, exit_in, fate_of, head_of, stray_records, strays
from runtime.host.daemon.zone import StopOrder, Zone, of_row
from runtime.host.ledger import Ledger, Record
from runtime.net.teardown import directories

log = logging.getLogger(__name__)

_SET_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


async def recover(core: Core) -> None:
    """Bring zones, ledgers and Xen to agree; on return every zone has its state and, if it lives, its task."""
    await _load(core)
    core.reservations = {row[0]: row[1] for row in await core.database.read(rows.SELECT_RESERVATIONS)}
    meta = dict(await core.database.read("SELECT key, value FROM meta"))
    is_new = "boot_id" not in meta
    rebooted = not is_new and meta["boot_id"] != core.boot_id
    await sharednets.load(core)
    domains = await core.thread(core.edge.domains)
    ledgers, left = await _read(core)
    if not left:  # else a directory may be served to a run that one of those is about
        await core.thread(_end_stray_shares, core, [record for _, records in ledgers for record in records])
    known: set[str] = set()
    ended: dict[str, ExitStatus] = {}
    for ledger, records in ledgers:
        known |= {str(record.get("uuid")) for record in records if record["kind"] == "domain"}
        try:
            await _take(core, ledger, records, domains, ended)
        except Exception as error:  # a defect of ours, or a record of another version: it costs this zone
            log.exception("run %s is left as it is", ledger.name)
            left.add(ledger.name)
            if (head := head_of(records)) is not None:
                sharednets.hold(core, head)
                why = f"its run is not taken over: {error!r}"
                zone = Zone(head.id, head.request, uuid=head.uuid, index=head.index)
                await unread.leave(core, head.id, unread.of_run(zone, why, claims.of_records(records)))
    await _end_strays(core, strays(domains, known | left))
    runs = [zone.run.uuid for zone in core.zones.values() if zone.run is not None]
    await sharednets.settle(core, [*runs, *core.unfinished, *left])
    await _end_stray_networks(core)
    for zone in list(core.zones.values()):
        if zone.state.live and zone.task is None:
            await _went(core, zone, ended.get(zone.id), rebooted=rebooted)
        elif not zone.state.live and zone.request.remove:
            await ending.forget(core, zone)
        elif rebooted and policy.comes_again_after_reboot(zone.request.restart, wanted=zone.wanted):
            _again(core, zone, 0.0)
            await core.save(zone, "zone.restarting", after="the host was rebooted", pause_s=f"{zone.pause_s:g}")
    nobodys = await core.thread(_nobodys, core)
    # A new database, in the place of one that was damaged or lost, does not know whose these are: they stay for good.
    strangers = None if is_new else _strangers(meta.get("strangers", "[]"))
    if strangers is None and nobodys is not None:
        strangers = [path.name for path in nobodys]
    changes = {"boot_id": core.boot_id, "strangers": json.dumps(strangers)}
    await core.write_or_refuse(*((_SET_META, item) for item in changes.items()))
    for path in nobodys or ():
        if path.name not in (strangers or ()):
            await core.thread(shutil.rmtree, path, True)


async def _load(core: Core) -> None:
    """The zones as the database knows them; one that cannot be read keeps its row, its name, its logs and its disk."""
    for columns in await core.database.read(rows.SELECT_ZONES):
        try:
            zone = of_row(rows.zone_row(columns))
        except rows.UNREADABLE as error:
            await unread.leave(core, columns[0], unread.of_row(columns, error))
        else:
            core.zones[zone.id] = zone


async def _read(core: Core) -> tuple[list[tuple[Ledger, list[Record]]], set[str]]:
    """The ledgers with their records, and the names of those that cannot be read: what they are about goes on."""
    ledgers, left = [], set()
    for ledger in core.ledgers.all():
        try:
            ledgers.append((ledger, await core.thread(ledger.records)))
        except OSError as error:
            log.error("run %s is left as it is: its ledger cannot be read: %s", ledger.name, error)
            left.add(ledger.name)
            for zone in [zone for zone in core.zones.values() if zone.uuid == ledger.name]:
                why, devices = f"its ledger cannot be read: {error}", await core.thread(claims.again, zone.bundle, ())
                await unread.leave(core, zone.id, unread.of_run(zone, why, devices))
            unread.run_is_left(core, ledger.name)
    return ledgers, left


async def _take(
    core: Core,
    ledger: Ledger,
    records: list[Record],
    domains: dict[str, DomainInfo],
    ended: dict[str, ExitStatus],
) -> None:
    """One ledger, by its fate."""
    head, fate = head_of(records), fate_of(records, core.boot_id, domains)
    if fate is Fate.VOID:
        ledger.close()
        return
    over = any(record["kind"] == "over" for record in records)
    if over:
        pass  # what became of its zone, which may have gone since, is in the database
    elif head is not None and fate is Fate.ADOPT:
        await _adopt(core, head, ledger, records, domains[head.uuid])
        return
    elif head is not None and fate is Fate.ENDED:
        await _zone_of(core, head)
        gone = await core.thread(takeover.exit_of_gone, core, domains.get(head.uuid))
        ended[head.id] = exit_in(records) or gone
    elif head is not None:
        log.warning("zone %s: its zoned ended while it was being started", head.name)
        zone = await _zone_of(core, head)
        ended[head.id] = exit_in(records) or _unfinished(zone)
    finished = await core.thread(ending.torn_down, core.edge, ledger)
    if head is not None and not over and head.id in ended:
        # Before the ledger goes, or is over: it is the only other place that knows.
        core.zones[head.id].exit = ended[head.id]
        await core.save(core.zones[head.id], request=True)
    if finished:
        ledger.close()
    else:
        if not over:
            await core.thread(ending.record_over, ledger)
        name, index = (head.name, head.index) if head else ("", -1)
        core.unfinished[ledger.name] = Unfinished(name, index, claims.of_records(records))
        if head is not None:
            sharednets.hold(core, head)


async def _zone_of(core: Core, head: Head) -> Zone:
    """The zone of a ledger; made anew from it where the database has lost it."""
    zone = core.zones.get(head.id)
    if zone is None:
        core.unread.pop(head.id, None)  # its row is written anew
        for other in [other for other in core.zones.values() if other.name == head.name]:
            # A database that was restored: what runs has the name, in the database too.
            await ending.forget(core, other, "replaced")
        zone = core.zones[head.id] = Zone(id=head.id, request=head.request, created=head.created)
        zone.restarts = head.restarts
    if not zone.state.live:
        zone.state = State.RUNNING  # the database is older than what it is about
        zone.wanted = True
    elif zone.state is State.RESTARTING and head.uuid != zone.uuid and head.restarts == zone.restarts:
        zone.state = State.CREATING  # its pause was over
    zone.uuid, zone.index = head.uuid, head.index
    return zone


async def _adopt(core: Core, head: Head, ledger: Ledger, records: list[Record], info: DomainInfo) -> None:
    """Take over a running domain now, or else later in its task: others are not to wait for it."""
    zone = await _zone_of(core, head)
    run = zone.run = takeover.begun(core, zone, head, ledger, records)
    await takeover.attempt(core, zone, run)
    if not run.up:
        await core.save(zone, request=True)
    memory_mib = zone.bundle.resources.memory_mib
    if not growth.has_taken(info, memory_mib):
        growth.hold(core, zone, run, memory_mib)
    life.start(core, zone, run)
    if not zone.wanted:  # somebody's stop was under way
        zone.stop = StopOrder(float(zone.bundle.process.stop_timeout_s))


def _unfinished(zone: Zone) -> ExitStatus:
    """The exit of a start that the end of zoned cut off."""
    if not zone.wanted:  # somebody's stop was calling it off
        return exits.failed("cancelled", "its boot was called off")
    return exits.failed("interrupted", "zoned ended while it was being started")


def _end_stray_shares(core: Core, records: list[Record]) -> None:
    """Before their domains are: they hold pages of them."""
    try:
        core.edge.end_stray_shares(core.settings.state_dir / "logs", records)
    except (RuntimeFault, OSError) as fault:
        log.error("%s", fault)
    except (KeyError, ValueError, TypeError) as error:  # of another version: it may name any of them
        log.error("processes that serve a directory and that no ledger names are not looked for: %r", error)


async def _end_strays(core: Core, found: list[DomainInfo]) -> None:
    for info in found:
        try:
            if await core.thread(core.edge.marked, info):
                log.warning("domain %d (%s) is of a zoned that forgot it: destroying it", info.domid, info.uuid)
                await core.thread(core.edge.teardown, stray_records(info))
        except (RuntimeFault, OSError) as fault:
            log.error("domain %d: %s", info.domid, fault)


async def _end_stray_networks(core: Core) -> None:
    known: set[str] = set()
    for ledger in (*core.ledgers.all(), *core.network_ledgers.all()):
        try:
            known |= set(directories(await core.thread(ledger.records)))
        except (OSError, KeyError) as error:
            log.error("networks that no ledger names are not looked for, as %s cannot be read: %s", ledger.path, error)
            return
    try:
        found = await core.thread(core.edge.stray_networks, core.settings.run_dir / "net", known)
    except OSError as error:
        log.error("networks that no ledger names are not looked for: %s", error)
        return
    for records in found:
        log.warning("network in %s is of a zoned that forgot it: ending it", next(directories(records)))
        try:
            await core.thread(core.edge.teardown, records)
        except (RuntimeFault, OSError) as fault:
            log.error("%s", fault)


async def _went(core: Core, zone: Zone, exit: ExitStatus | None, *, rebooted: bool) -> None:
    """A zone that was live and has no run any more: it comes again, or is over.

    One that was in the pause before its next start is neither asked nor counted again: that start is due.
    """
    if exit is None:
        gone = ("rebooted", "the host was rebooted") if rebooted else ("lost", "it was gone when zoned came back")
        exit = zone.exit if zone.exit and not rebooted else exits.failed(*gone, code=255)
    zone.exit = exit
    zone.finished = zone.finished or core.clock.now()
    if rebooted:
        again = policy.comes_again_after_reboot(zone.request.restart, wanted=zone.wanted)
    elif zone.state is State.RESTARTING:
        again = zone.wanted
    elif again := zone.wanted and policy.comes_again(zone.request.restart, exit, restarts=zone.restarts):
        zone.restarts += 1
        ran_s = zone.finished - zone.started if zone.started else 0.0
        zone.pause_s = policy.pause_s(zone.pause_s, ran_s)
    if again:
        _again(core, zone, 0.0 if rebooted else zone.pause_s)
        await core.save(zone, "zone.restarting", request=True, after=exit.text, pause_s=f"{zone.pause_s:g}")
        return
    zone.state = State.FAILED if exit.reason == "interrupted" else State.EXITED
    zone.console_tail = tuple(await core.thread(_tail, core, zone))
    kind = "zone.failed" if zone.state is State.FAILED else "zone.exited"
    await core.save(zone, kind, request=True, code=str(exit.code), text=exit.text)
    if zone.request.remove:
        await ending.forget(core, zone)


def _again(core: Core, zone: Zone, pause_s: float) -> None:
    zone.state, zone.wanted, zone.ports, zone.uuid = State.RESTARTING, True, (), ""
    zone.pause_s = pause_s or policy.FIRST_PAUSE_S
    # Of a pause that was begun, what is left; a clock that was set meanwhile makes it no longer.
    left_s = zone.finished + zone.pause_s - core.clock.now()
    life.start(core, zone, pause_s=min(max(left_s, policy.FIRST_PAUSE_S), zone.pause_s))


def _tail(core: Core, zone: Zone) -> list[str]:
    return ending.tail_of(core.logs_of(zone) / "console")


def _strangers(text: str) -> list[str] | None:
    """Those that were there before this database; None where nobody knows which."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _nobodys(core: Core) -> list[Path] | None:
    """Logs and scratch disks of zones that nobody knows of any more; None where they cannot be listed."""
    directories = [core.settings.state_dir / name for name in ("logs", "scratch")]
    try:
        found = [path for directory in directories if directory.is_dir() for path in directory.iterdir()]
    except OSError as error:
        log.error("what is left of zones that nobody knows stays: %s", error)
        return None
    return [path for path in found if path.name not in core.zones and path.name not in core.unread]
