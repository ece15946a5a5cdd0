"""Ends a run: whether it was never built, failed, was stopped or died, by the one teardown that walks its ledger."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from pathlib import Path

from pipeline.jsonmodel import to_json
from runtime.errors import RuntimeFault
from runtime.host.daemon import rows, sharednets
from runtime.host.daemon.bringup import settled
from runtime.host.daemon.core import Core, Unfinished
from runtime.host.daemon.database import Statement
from runtime.host.daemon.edge import Edge
from runtime.host.daemon.exits import from_xen
from runtime.host.daemon.model import ExitStatus
from runtime.host.daemon.signals import until
from runtime.host.daemon.zone import Run, Zone
from runtime.host.ledger import Ledger

log = logging.getLogger(__name__)

CONSOLE_TAIL_LINES = 40  # a kernel that panics says why some 30 lines before its end
_CONSOLE_TAIL_BYTES = 64 << 10
_RETRY_S = 5.0


def exit_of(run: Run) -> ExitStatus:
    """How it ended: the zone's own word first, then Xen's."""
    if run.reason == "crash" and (run.told is None or run.told.clean):
        return from_xen("crash")
    return run.told or from_xen(run.reason or "destroyed")


async def end(core: Core, zone: Zone, run: Run, exit: ExitStatus) -> None:
    """Give back everything the run holds; on return the zone's exit is known and its ledger gone, or kept for later.

    The exit is in the ledger before anything goes, so that a zoned that dies here is followed by one that knows it.
    """
    core.ending.add(run.uuid)
    try:
        await _end(core, zone, run, exit)
    finally:
        core.ending.discard(run.uuid)


async def _end(core: Core, zone: Zone, run: Run, exit: ExitStatus) -> None:
    if run.link is not None:
        with contextlib.suppress(RuntimeFault):
            await run.link.close()
    await core.thread(_record_exit, run.ledger, exit)
    if core.deaths is not None and run.domain is not None:
        core.deaths.discard(run.domain.domid)
    finished = await core.thread(let_go, core.edge, run)
    core.admission.settle(run.uuid)
    if not finished:
        core.unfinished[run.ledger.name] = Unfinished(zone.name, run.addresses.index, run.devices)
    zone.exit, zone.finished = exit, core.clock.now()
    zone.console_tail = tuple(await core.thread(tail_of, run.console)) if not exit.clean else ()
    for told in core.run_enders:
        await told(zone, run)
    zone.last, zone.run = run, None
    await core.save(zone)
    if finished:
        await core.thread(run.ledger.close)
        await sharednets.release(core, run.uuid)
    else:
        await core.thread(record_over, run.ledger)


def record_over(ledger: Ledger) -> None:
    """The database knows how the run ended, and what becomes of the zone: a later zoned has only to tear it down."""
    with contextlib.suppress(OSError):
        ledger.record("over")


def _record_exit(ledger: Ledger, exit: ExitStatus) -> None:
    try:
        ledger.record("exit", exit=to_json(exit))
    except OSError as problem:
        log.error("ledger of run %s: %s", ledger.name, problem)  # the teardown goes on


def let_go(edge: Edge, run: Run) -> bool:
    """The blocking part; False where something still stands in the way and the ledger has to stay."""
    if run.watch is not None:
        run.watch.close()
    if run.network is not None:
        edge.care_no_more(run.network)
    run.shares.end()
    for part in (run.domain, run.network):
        try:
            if part is not None:
                part.destroy()
        except (RuntimeFault, OSError) as fault:
            log.warning("run %s: %s", run.uuid, fault)  # the ledger's walk below says whether it matters
        except Exception:  # likewise
            log.exception("run %s", run.uuid)
    finished = torn_down(edge, run.ledger)
    for loop in run.loops:
        loop.close()
    return finished


async def leave(core: Core, run: Run) -> None:
    """Let go of a run that goes on without us."""
    if run.link is not None:
        with contextlib.suppress(RuntimeFault):
            await run.link.close()

    def release() -> None:
        if run.watch is not None:
            run.watch.close()
        if run.network is not None:
            core.edge.care_no_more(run.network)
        run.shares.let_go()
        if run.domain is not None:
            run.domain.let_go()
        # Loop devices stay: blkback holds them, and our descriptors end with us.

    await core.thread(release)


async def reap(core: Core) -> None:
    """Go on, again and again, with teardowns that something has not let finish."""
    while True:
        await core.clock.sleep(_RETRY_S)
        for ledger in list(core.ledgers.all()):
            if ledger.name in core.unfinished and await core.thread(_again, core.edge, ledger):
                core.unfinished.pop(ledger.name, None)
                await sharednets.release(core, ledger.name)
        await sharednets.reap(core)


def _again(edge: Edge, ledger: Ledger) -> bool:
    if not torn_down(edge, ledger, level=logging.INFO):
        return False
    ledger.close()
    return True


def torn_down(edge: Edge, ledger: Ledger, *, level: int = logging.ERROR) -> bool:
    """Walk a ledger; False where something still stands in the way, foreseen or not, and the ledger has to stay."""
    try:
        edge.teardown(ledger.records())
    except (RuntimeFault, OSError) as fault:
        log.log(level, "run %s is not gone yet: %s", ledger.name, fault)
        return False
    except Exception:  # a defect of ours, or a record of another version: it costs this run, and nobody else
        log.exception("run %s is not gone yet", ledger.name)
        return False
    return True


async def forget(core: Core, zone: Zone, why: str = "") -> bool:
    """Remove an ended zone with all it left, whole though the caller is cancelled.

    False where it is somebody else that removes or replaces it.
    """
    while not zone.removed:
        if not zone.going:
            zone.going = True
            core.zones.pop(zone.id, None)
            task = asyncio.ensure_future(_forget(core, zone, why))
            await settled([task])
            task.result()
            return True
        await until(zone.changes, lambda: zone.removed or not zone.going, core.clock)
    return False


async def _forget(core: Core, zone: Zone, why: str) -> None:
    attributes = {"why": why} if why else {}
    await core.tell("zone.removed", zone, *rows.drop_zone(zone.id), **attributes)
    await clear(core, zone)


def gone(core: Core, zone: Zone, why: str) -> list[Statement]:
    """What forgets a zone in the database; `clear` follows."""
    event = rows.add_event(core.clock.now(), "zone.removed", zone.id, zone.name, {"why": why})
    return [*rows.drop_zone(zone.id), *event]


async def clear(core: Core, zone: Zone) -> None:
    """Remove what a zone left that the database knows no more."""
    core.zones.pop(zone.id, None)
    zone.held.release()
    if zone.log is not None:
        zone.log.close()
    for told in core.forgetters:
        told(zone)
    for left in (core.logs_of(zone), core.scratch_of(zone)):
        await core.thread(shutil.rmtree, left, True)
    zone.removed = True
    zone.changes.tell()


def tail_of(console: Path) -> list[str]:
    """The last lines of a console file."""
    try:
        data = console.read_bytes()[-_CONSOLE_TAIL_BYTES:]
    except OSError:
        return []
    return readable(data)


def readable(data: bytes) -> list[str]:
    """The last lines of what a zone said, control characters escaped."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    clean = ["".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line) for line in text.split("\n")]
    return [line for line in clean if line.strip()][-CONSOLE_TAIL_LINES:]
