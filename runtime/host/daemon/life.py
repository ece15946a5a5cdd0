"""The life of a zone: one task that goes through its runs, from the first to the last.

    queued -> creating -> running -> ready -> (stopping) -> exited | failed
                 ^                                 |
                 +---- restarting (a pause) <------+      as its restart policy says

Whatever ends a run ends in `ending.end`. Orders (a stop, a kill) are fields of the zone; its `changes` tell of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid as uuids
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.daemon import (
    addressing,
    agentwatch,
    bringup,
    ending,
    exits,
    policy,
    sharednets,
    takeover,
    timekeeping,
)
from runtime.host.daemon.agent import MAIN
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import BadRequest, BootCancelled
from runtime.host.daemon.model import ExitStatus, State
from runtime.host.daemon.signals import first, until
from runtime.host.daemon.zone import Run, StopOrder, Zone
from runtime.net.addresses import ZoneAddresses

log = logging.getLogger(__name__)

FORCE_AFTER_S = 5.0  # beyond the workload's own time to stop: its init has to end too
ATTACH_S = 10.0  # from the end of a zone that is awaited to the attach, which is the client's next call
ADOPTED_S = 30.0  # in which what runs has told how far it is
SETTING_UP = ("", "init", "modules", "root")  # phases in which nothing of the user's runs yet: runtime/init/boot.py
_CUT_OFF = exits.failed("cancelled", "zoned ended while it was started")
DRAIN_S = 0.5  # its agent had its output acknowledged before it ended, if it ended as it should
TOLD_S = 5.0  # for what its agent had told by then to be written; the disk may be busy
FEW_NOTES = 32  # of a zone that floods more are left, and those are its own


def start(core: Core, zone: Zone, run: Run | None = None, *, pause_s: float = 0.0) -> None:
    """Begin the task of a zone; with a run that goes on already, or after a pause before the first one."""
    assert zone.task is None or zone.task.done()
    zone.task = asyncio.create_task(_live(core, zone, run, pause_s), name=f"zone {zone.name}")
    zone.task.add_done_callback(lambda _: zone.changes.tell())


async def _live(core: Core, zone: Zone, run: Run | None, pause_s: float) -> None:
    try:
        if pause_s and not await _pause(core, zone, pause_s):
            await _over(core, zone, zone.exit or exits.failed("cancelled", "its restart was called off"), ready=True)
            return
        while True:
            exit, ran_s, was_ready = await _one_run(core, zone, run)
            run = None
            if zone.stop is not None or not zone.wanted or core.leaving:
                break
            if not policy.comes_again(zone.request.restart, exit, restarts=zone.restarts):
                break
            zone.pause_s = policy.pause_s(zone.pause_s, ran_s)
            zone.restarts += 1
            zone.state = State.RESTARTING
            await core.save(zone, "zone.restarting", after=exit.text, pause_s=f"{zone.pause_s:g}")
            if not await _pause(core, zone, zone.pause_s):
                break
        await _over(core, zone, exit, ready=was_ready)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("zone %s", zone.name)
        zone.state = State.FAILED
        zone.changes.tell()


async def _pause(core: Core, zone: Zone, pause_s: float) -> bool:
    """False where somebody stopped the zone meanwhile."""
    return not await until(zone.changes, lambda: zone.stop is not None, core.clock, pause_s)


async def _over(core: Core, zone: Zone, exit: ExitStatus, *, ready: bool) -> None:
    """No run follows."""
    zone.held.release()
    zone.exit = exit
    zone.stop = None
    zone.finished = zone.finished or core.clock.now()
    failed = exit.reason and exit.reason != "cancelled" and not exit.crashed and not ready
    zone.state = State.FAILED if failed else State.EXITED
    kind = "zone.failed" if zone.state is State.FAILED else "zone.exited"
    await core.save(zone, kind, code=str(exit.code), text=exit.text)
    if zone.request.remove:
        await _seen(core, zone)
        if zone.id in core.zones:  # else somebody else removes it
            await ending.forget(core, zone)


async def _seen(core: Core, zone: Zone) -> None:
    """What a zone said, and how it ended, is there until whoever booted it to attach to it, or is attached, has it."""
    await until(zone.changes, lambda: not zone.awaited or zone.removed, core.clock, ATTACH_S)
    zone.awaited = False
    await until(zone.changes, lambda: not zone.attached or zone.removed, core.clock)


async def _one_run(core: Core, zone: Zone, run: Run | None) -> tuple[ExitStatus, float, bool]:
    """A run, begun here or adopted, to its end: how it ended, how long it ran, whether its workload did."""
    zone.failure = None
    try:
        if run is None:
            run = await _begin(core, zone)
        else:
            zone.run = run
    except (RuntimeFault, OSError) as error:
        return await _unbegun(core, zone, error), 0.0, False
    followers: list[asyncio.Task[None]] = []
    exit: ExitStatus | None
    try:
        if run.adopted:
            await takeover.until_taken(core, zone, run)
        else:
            await _unless_stopped(core, zone, bringup.bring_up(core, zone, run))
        if run.up:
            followers = await _follow(core, zone, run)
            await _until_end(core, zone, run)
        exit = None
    except asyncio.CancelledError:
        if core.leaving and (run.up or run.adopted):
            await _quit(followers)
            await ending.leave(core, run)
        else:
            await _end_at_any_rate(core, zone, run, _CUT_OFF)
        raise
    except BootCancelled as error:
        zone.failure, exit = error, exits.failed("cancelled", "its boot was called off")
    except (RuntimeFault, OSError) as error:
        zone.failure, exit = error, exits.failed("boot", str(error))
    except Exception as error:
        log.exception("zone %s", zone.name)
        zone.failure, exit = error, exits.failed("internal", f"{type(error).__name__}: {error}")
    ran_s = core.clock.monotonic() - run.since if run.since else 0.0
    await _drain(core, zone, run, followers)
    await _quit(followers)
    exit = exit or ending.exit_of(run)
    await _end_at_any_rate(core, zone, run, exit)
    return exit, ran_s, run.ready


async def _begin(core: Core, zone: Zone) -> Run:
    """A run's memory is promised, its network chosen, its ledger begun."""
    core.check_fit(zone.name)
    uuid = zone.uuid if zone.state is State.QUEUED and zone.uuid else str(uuids.uuid4())
    await core.admission.promise(uuid, bringup.memory_kib(zone), f"zone {zone.name}")
    try:
        addresses = _addresses(core, zone, uuid)
        index = addresses.index
        core.taking.add(index)  # until the run that has it is known
        try:
            await core.thread(bringup.begin, core, zone, uuid, addresses)
        finally:
            core.taking.discard(index)
    except BaseException:
        if zone.run is not None:
            await _end_at_any_rate(core, zone, zone.run, _CUT_OFF)
        else:
            core.admission.settle(uuid)
            await sharednets.release(core, uuid)
        raise
    assert zone.run is not None
    zone.uuid, zone.index = uuid, index
    return zone.run


def _addresses(core: Core, zone: Zone, uuid: str) -> ZoneAddresses:
    if zone.request.network_name:
        return sharednets.place(core, zone, uuid)
    if zone.request.isolated:
        raise BadRequest(f"zone {zone.name}", expected="a shared network to be isolated in", got="a private one")
    return addressing.private(core, zone.name, zone.bundle.network.address, zone.request.reservation)


async def _unbegun(core: Core, zone: Zone, error: Exception) -> ExitStatus:
    zone.failure, zone.exit = error, exits.failed("boot", str(error))
    zone.finished = core.clock.now()
    await core.save(zone)
    return zone.exit


async def _unless_stopped(core: Core, zone: Zone, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; raises BootCancelled, with the work ended, when the zone is to stop meanwhile."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda _: zone.changes.tell())
    try:
        await until(zone.changes, lambda: task.done() or zone.stop is not None, core.clock)
    finally:
        if not task.done():
            task.cancel()
        await bringup.settled([task])
    if task.cancelled():
        raise BootCancelled(f"zone {zone.name}", got="its boot was called off")
    task.result()


async def _follow(core: Core, zone: Zone, run: Run) -> list[asyncio.Task[None]]:
    """The tasks that listen to a running zone."""
    assert run.domain is not None
    tasks = [asyncio.create_task(_guarded(zone, partial(agentwatch.follow_state, core, zone, run)))]
    try:
        await _join(core, zone, run, tasks)
    except (RuntimeFault, OSError) as fault:
        log.warning("zone %s has no agent channel yet: %s", zone.name, fault)
        tasks.append(asyncio.create_task(_guarded(zone, partial(_join_later, core, zone, run, tasks))))
    run.joined = True
    zone.changes.tell()
    return tasks


async def _join(core: Core, zone: Zone, run: Run, tasks: list[asyncio.Task[None]]) -> None:
    """Open the channel of its agent, where it has one, and have more tasks listen to that; its log's is named so."""
    assert run.domain is not None
    if run.link is None:
        run.link = await core.edge.open_link(run.domain, partial(core.link_made, zone))
    if run.link is None:
        return
    follow = partial(agentwatch.follow_agent, core, zone, run, run.link)
    tasks.append(asyncio.create_task(_guarded(zone, follow), name="agent"))
    tasks.append(asyncio.create_task(_guarded(zone, partial(timekeeping.keep, core, zone, run.link))))
    if zone.bundle.process.argv:  # one that idles has no output of its own
        opened = partial(core.log_of, zone)
        log_of_main = partial(agentwatch.follow_log, core, run.link, MAIN, opened, run.uuid)
        tasks.append(asyncio.create_task(_guarded(zone, log_of_main), name="log"))


async def _join_later(core: Core, zone: Zone, run: Run, tasks: list[asyncio.Task[None]]) -> None:
    """Again and again: what the host was short of may have come back, and the zone runs on."""
    pause_s = takeover.FIRST_PAUSE_S
    while True:
        await core.clock.sleep(pause_s)
        pause_s = min(2 * pause_s, takeover.LONGEST_PAUSE_S)
        try:
            await _join(core, zone, run, tasks)
        except (RuntimeFault, OSError) as fault:
            log.info("zone %s has no agent channel yet: %s", zone.name, fault)
        else:
            zone.changes.tell()
            return


async def _guarded(zone: Zone, follower: Callable[[], Awaitable[None]]) -> None:
    """A follower that fails is a defect of ours or a trick of the guest's: it costs what it followed, not the zone."""
    try:
        await follower()
    except Exception:
        log.exception("zone %s", zone.name)


async def _until_end(core: Core, zone: Zone, run: Run) -> None:
    """Until the domain has ended, by itself, by order, or because it hangs."""
    if await _hangs(core, zone, run):
        return
    await until(zone.changes, lambda: run.reason or zone.stop is not None, core.clock)
    if run.reason:
        return
    assert zone.stop is not None and run.domain is not None
    zone.state = State.STOPPING
    await core.save(zone, "zone.stopping", timeout_s=f"{zone.stop.timeout_s:g}")
    while zone.stop.timeout_s > 0 and not run.reason:
        order = zone.stop
        if await _asked_before_it_began(core, zone, run, order):
            run.told = run.told or exits.failed("cancelled", "it was stopped before its workload started")
            return
        patience_s = order.timeout_s + FORCE_AFTER_S
        if not await until(zone.changes, _ended_or_reordered(zone, run, order), core.clock, patience_s):
            break
    if not run.reason:
        run.told = run.told or exits.by_signal(9)  # its workload may have ended before the domain does


async def _asked_before_it_began(core: Core, zone: Zone, run: Run, order: StopOrder) -> bool:
    """Ask its init to stop the workload; True where there is none, nor will be: the domain need not be waited for.

    Its init reports the phase "network", then looks whether it was asked, then starts the workload. So a zone that has
    not reported it once it was asked will not start the workload any more.
    """
    assert run.domain is not None
    try:
        await core.thread(run.domain.request_stop, zone.bundle.process.stop_signal, order.timeout_s)
        await agentwatch.take_state(core, zone, run, await core.thread(run.domain.state))
    except RuntimeFault as fault:  # a zone that is already going has no node to ask through
        log.debug("zone %s: %s", zone.name, fault)
        return False
    return not run.ready and not run.reason and run.phase in SETTING_UP


async def _hangs(core: Core, zone: Zone, run: Run) -> bool:
    """Has its workload not come to run in the time it was given? A zone that idles has none to wait for."""
    limit_s = zone.request.start_timeout_s
    if not limit_s or not zone.bundle.process.argv:
        return False
    # One that is adopted may have started while nobody looked: what it reports is read first.
    left_s = max(run.since + limit_s - core.clock.monotonic(), min(limit_s, ADOPTED_S))
    if await until(zone.changes, lambda: run.ready or run.reason or zone.stop is not None, core.clock, left_s):
        return False
    run.told = run.told or exits.failed("timeout", f"its workload did not start within {limit_s:g} s")
    return True


def _ended_or_reordered(zone: Zone, run: Run, order: StopOrder) -> Callable[[], bool]:
    return lambda: bool(run.reason) or zone.stop is not order


async def _drain(core: Core, zone: Zone, run: Run, followers: list[asyncio.Task[None]]) -> None:
    """What a zone that has ended told and printed last may still be on its way: in xenstore, in the ring, to disk."""
    if run.domain is None or not run.reason:
        return
    with contextlib.suppress(RuntimeFault):
        await agentwatch.take_state(core, zone, run, await core.thread(run.domain.state))
    agents = [task for task in followers if task.get_name() == "agent"]
    if agents and run.notes.qsize() < FEW_NOTES:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOLD_S):
                await first(run.notes.join(), asyncio.wait(agents))
    logs = [task for task in followers if task.get_name() == "log"]
    if logs and run.link is not None and run.link.connected.is_set():
        await asyncio.wait(logs, timeout=DRAIN_S)


async def _quit(followers: list[asyncio.Task[None]]) -> None:
    for task in followers:
        task.cancel()
    if followers:
        await bringup.settled(followers)


async def _end_at_any_rate(core: Core, zone: Zone, run: Run, exit: ExitStatus) -> None:
    """The teardown, whole, even if this task is cancelled meanwhile."""
    task = asyncio.ensure_future(ending.end(core, zone, run, exit))
    await bringup.settled([task])
    task.result()
