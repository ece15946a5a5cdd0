"""What can be asked about zones as a whole: boot, stop, kill, restart, remove, wait, update."""

from __future__ import annotations

import asyncio
import contextlib
import math
import uuid as uuids
from collections.abc import Sequence

from runtime.errors import RuntimeFault
from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon import (
    blobs,
    bringup,
    ending,
    life,
    logreader,
    names,
    networking,
    policy,
    ports,
    rows,
    spec,
    unread,
    volumes,
)
from runtime.host.daemon.agent import MAIN
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import (
    BadRequest,
    BootCancelled,
    NameTaken,
    NoAgent,
    NotEnough,
    NotPrepared,
    UnknownZone,
    WaitTimeout,
    WrongState,
    ZoneFailed,
)
from runtime.host.daemon.model import BootRequest, Emit, PortRule, State, ZoneInfo
from runtime.host.daemon.signals import first, until
from runtime.host.daemon.zone import Run, StopOrder, Zone, info

PORT_POLL_S = 0.05
LONGEST_PORT_POLL_S = 0.5
END_PATIENCE_S = 10.0  # for a run that has ended to be known with how it did


def check_request(request: BootRequest) -> None:
    """Everything about a request that can be refused without looking at this host. Raises BadRequest."""
    bundle = request.bundle
    names.check_name(bundle.name)
    subject = f"zone {bundle.name}"
    policy.check_policy(request.restart, subject)
    if request.remove and request.restart.name not in ("no",):
        raise BadRequest(subject, expected="a restart policy or removal at its end", got="both")
    if not 0 <= request.start_timeout_s < math.inf:
        expected = "0 or more seconds"
        raise BadRequest(f"{subject}, start timeout", expected=expected, got=f"{request.start_timeout_s:g}")
    ports.check_rules(spec.rules_of(request), subject)
    volumes.check(bundle)
    networking.check(bundle.network, subject)
    networking.check_engine(request, subject)


async def boot(core: Core, request: BootRequest, emit: Emit) -> ZoneInfo:
    """See Manager.boot."""
    check_request(request)
    name = request.bundle.name
    if core.leaving:
        raise NotPrepared(f"zone {name}", got="zoned is ending", temporary=True)
    if request.reservation and request.reservation not in core.reservations:
        raise BadRequest(f"zone {name}", expected="a reservation of this host", got=request.reservation[:80])
    # A device that cannot be had, or made, is told before there is a zone to forget.
    await core.thread(core.edge.look_for_engine, request.bundle.network.engine)
    await volumes.look(core, request.bundle)
    await volumes.look_for_room(core, request.bundle)
    zone = await _accept(core, request)
    zone.listeners.append(emit)
    zone.awaited = request.attach
    zone.say("queued")  # from here on it has an id, and can be asked for
    life.start(core, zone)
    try:
        await _booted(core, zone, request)
    except asyncio.CancelledError:
        await _unmade(core, zone, forget=True)
        raise
    except RuntimeFault:
        await _unmade(core, zone, forget=request.remove)
        raise
    finally:
        zone.listeners.clear()
    return info(zone)


async def _accept(core: Core, request: BootRequest) -> Zone:
    """A zone that is known, has its ports and is promised its memory, and nothing else yet."""
    name = request.bundle.name
    core.check_fit(name)
    old = next((zone for zone in core.zones.values() if zone.name == name), None)
    if name in core.booting or (old is not None and old.state.live):
        state = old.state.value if old is not None else State.QUEUED.value
        hint = "zone stop ends it, zone rm --force forgets it too"
        raise NameTaken(f"zone {name}", expected="a name that no zone has", got=f"one that is {state}", hint=hint)
    if old is not None and request.fresh and not old.request.remove:
        hint = f"zone rm {name} forgets it with its logs, zone start {name} starts it again"
        got = f"one that has ended, {old.state.value}"
        raise NameTaken(f"zone {name}", expected="a name that no zone has", got=got, hint=hint)
    if (left := unread.find(core, name)) is not None:
        got, hint = f"one that could not be read: {left[1].why}", "zone rm --force forgets it"
        raise NameTaken(f"zone {name}", expected="a name that no zone has", got=got, hint=hint)
    waiting = [z for z in core.zones.values() if z.state in (State.QUEUED, State.CREATING)]
    if len(waiting) + len(core.booting) >= core.settings.queue:
        got = f"{len(waiting)} that wait already"
        raise NotEnough(
            f"zone {name}", expected=f"{core.settings.queue} zones at most to wait", got=got, temporary=True
        )
    if request.reservation:
        _check_reservation(core, request)
    zone = Zone(id=str(uuids.uuid4()), request=request, created=core.clock.now(), uuid=str(uuids.uuid4()))
    _take_ports(core, zone)
    core.booting.add(name)
    try:
        await core.admission.promise(zone.uuid, bringup.memory_kib(zone), f"zone {name}")
        try:
            await _take_name(core, zone, old)
        except BaseException:
            core.admission.settle(zone.uuid)
            raise
    except BaseException:
        zone.held.release()
        raise
    finally:
        core.booting.discard(name)
    return zone


async def _take_name(core: Core, zone: Zone, old: Zone | None) -> None:
    """Write a new zone; one that had its name is forgotten with that, or stays as it is. Raises StateDamaged."""
    async with contextlib.AsyncExitStack() as changing:
        if old is not None:  # an update would write it again
            await changing.enter_async_context(old.changing)
            if old.going:  # somebody else removes it, see ending.forget
                old = None
            else:
                old.going = True
        written = asyncio.create_task(_write_new(core, zone, old, changing.pop_all()))
    core.tasks.add(written)
    written.add_done_callback(core.tasks.discard)
    try:
        await asyncio.shield(written)
    except asyncio.CancelledError:
        # It is written all the same, and would have the name for ever.
        core.background(core.tell("zone.removed", zone, *rows.drop_zone(zone.id)))
        raise
    core.zones[zone.id] = zone
    blobs.had(core, zone)


async def _write_new(core: Core, zone: Zone, old: Zone | None, changing: contextlib.AsyncExitStack) -> None:
    """changing: what keeps others from changing the old one until it is gone."""
    async with changing:
        if old is None:
            await core.save_or_refuse(zone, "zone.queued")
            return
        try:
            await core.save_or_refuse(zone, "zone.queued", *ending.gone(core, old, "replaced"))
        except BaseException:
            old.going = False
            old.changes.tell()
            raise
        await ending.clear(core, old)


def _take_ports(core: Core, zone: Zone) -> None:
    """Before anything is made for it: a port that cannot be had is the commonest thing to go wrong."""
    rules = spec.rules_of(zone.request)
    others = [(other.name, other.ports) for other in core.zones.values() if other.state.live]
    ports.refuse_taken(zone.name, rules, others)
    zone.ports = zone.held.take(zone.name, rules)


def _check_reservation(core: Core, request: BootRequest) -> None:
    for zone in core.zones.values():
        if zone.state.live and zone.request.reservation == request.reservation:
            raise NameTaken(f"reservation {request.reservation}", expected="it free", got=f"zone {zone.name} has it")


async def _booted(core: Core, zone: Zone, request: BootRequest) -> None:
    await until(zone.changes, lambda: _up(zone) or _given_up(zone), core.clock)
    if not _up(zone):
        raise await failure(core, zone, "ended before it ran")
    if request.until_ready or request.until_ports_answer:
        await _until_ready(core, zone, None, patient=False)
    if request.until_ports_answer:
        await _until_ports(core, zone, None)
    zone.say("ready")


def _up(zone: Zone) -> bool:
    return bool((zone.run and zone.run.up) or (zone.last and zone.last.up))


def _ran(zone: Zone) -> bool:
    """Does its workload run? Or has it, in the last run of a zone that has ended?"""
    if zone.run is not None:
        return zone.run.ready
    return bool(zone.ready) and not zone.state.live


def _given_up(zone: Zone) -> bool:
    """Is the run that was begun over?"""
    return not zone.lives or zone.state is State.RESTARTING or zone.removed


async def failure(core: Core, zone: Zone, what: str) -> RuntimeFault:
    """The error for a zone that did not do what was asked: its own, or how it ended with the last it said."""
    if isinstance(zone.failure, RuntimeFault):
        return zone.failure
    if zone.failure is not None:
        return ZoneFailed(f"zone {zone.name}", got=f"{what}: {zone.failure}")
    if zone.exit is not None and zone.exit.reason == "cancelled":
        return BootCancelled(f"zone {zone.name}", got=zone.exit.text)
    how = f", {zone.exit.text}" if zone.exit else ""
    run = zone.run or zone.last
    said = b"" if run is None else await _last_output(core, zone, run)
    console = list(zone.console_tail) or (await core.thread(ending.tail_of, run.console) if run else [])
    tails = (("its last lines", ending.readable(said)), ("its last console lines", console))
    hint = "\n".join(f"{title}:\n  " + "\n  ".join(lines) for title, lines in tails if lines)
    return ZoneFailed(f"zone {zone.name}", got=what + how, hint=hint)


async def _last_output(core: Core, zone: Zone, run: Run) -> bytes:
    """The end of what a run's workload printed."""
    entries = logreader.read_log(core.logs_of(zone), tail=ending.CONSOLE_TAIL_LINES, run=run.uuid)
    return b"".join([entry.data async for entry in entries])


async def _unmade(core: Core, zone: Zone, *, forget: bool) -> None:
    """End a zone whose boot came to nothing, and that nobody wants to come again.

    All of it in a task of its own: a client that goes cancels a call twice, with its stream and with its connection.
    """
    await bringup.settled([asyncio.create_task(_end_for_good(core, zone, forget=forget))])


async def _end_for_good(core: Core, zone: Zone, *, forget: bool) -> None:
    await order_stop(core, zone, 0.0)
    await until(zone.changes, lambda: not zone.lives, core.clock)
    # One that zoned leaves running is the next zoned's to end: that it is not wanted is on disk.
    if forget and not zone.removed and zone.run is None:
        await ending.forget(core, zone)


async def order_stop(core: Core, zone: Zone, timeout_s: float) -> None:
    """Have it ended. What is wanted is on disk before anything is done."""
    if not zone.state.live:
        return
    zone.wanted = False
    await core.save(zone)
    if zone.state.live:
        zone.stop = StopOrder(timeout_s)
        zone.changes.tell()


async def stop(core: Core, zone: Zone, timeout_s: float | None) -> ZoneInfo:
    """See Manager.stop."""
    default = float(zone.bundle.process.stop_timeout_s)
    await order_stop(core, zone, default if timeout_s is None else max(0.0, timeout_s))
    await until(zone.changes, lambda: not zone.lives, core.clock)
    return info(zone)


async def kill(core: Core, zone: Zone, signal: int) -> ZoneInfo:
    """See Manager.kill."""
    if not 0 <= signal < 65:
        raise BadRequest(f"zone {zone.name}, signal", expected="1 to 64, or 0 for the domain", got=str(signal))
    if not zone.state.up:
        raise WrongState(f"zone {zone.name}", expected="it running", got=f"it is {zone.state.value}")
    run = zone.run
    if signal == 0:
        return await stop(core, zone, 0.0)
    if run is not None and run.link is not None and run.link.connected.is_set():
        await run.link.call("kill", {"id": MAIN, "signal": signal, "all": False})
        return info(zone)
    if signal == 9:
        return await stop(core, zone, 0.0)
    raise NoAgent(f"zone {zone.name}", expected="its agent to send a signal through", got="none that answers")


async def restart(core: Core, zone: Zone, timeout_s: float | None, *, unless_live: bool) -> ZoneInfo:
    """See Manager.restart."""
    if unless_live and zone.state.live and zone.stop is None:
        return info(zone)
    core.check_fit(zone.name)  # one that could not be started again runs on
    if unless_live:
        await until(zone.changes, lambda: not zone.lives, core.clock)
    elif zone.state.live:
        await stop(core, zone, timeout_s)
    if core.zones.get(zone.id) is not zone or zone.request.remove:
        raise UnknownZone(f"zone {zone.name}", got="it is removed as it has ended")
    async with zone.changing:  # somebody may be in the midst of replacing it
        if unless_live and zone.state.live:
            return info(zone)
        await _begin_again(core, zone)
    await until(zone.changes, lambda: _up(zone) or _given_up(zone), core.clock)
    if not _up(zone):
        raise await failure(core, zone, "ended before it ran")
    return info(zone)


async def _begin_again(core: Core, zone: Zone) -> None:
    """A zone that has ended has its ports again, is promised its memory, and its life begins."""
    await until(zone.changes, lambda: zone.task is None or zone.task.done(), core.clock)  # its end is still written
    if core.zones.get(zone.id) is not zone:
        raise UnknownZone(f"zone {zone.name}", got="it has been removed")
    if zone.state.live or zone.name in core.booting:
        raise WrongState(f"zone {zone.name}", expected="it stopped", got="somebody has started it again")
    _take_ports(core, zone)
    core.booting.add(zone.name)
    try:
        uuid = str(uuids.uuid4())
        await core.admission.promise(uuid, bringup.memory_kib(zone), f"zone {zone.name}")
        if core.zones.get(zone.id) is not zone:
            raise UnknownZone(f"zone {zone.name}", got="it has been removed")
    except BaseException:
        core.admission.settle(uuid)
        zone.held.release()
        raise
    finally:
        core.booting.discard(zone.name)
    zone.uuid, zone.wanted, zone.restarts, zone.pause_s, zone.last = uuid, True, 0, 0.0, None
    zone.state, zone.stop, zone.failure = State.QUEUED, None, None
    life.start(core, zone)  # before anything is waited for: one that is queued without a life could not even be stopped
    await core.save(zone, "zone.queued")


async def remove(core: Core, zone: Zone, *, force: bool) -> ZoneInfo:
    """See Manager.remove."""
    if zone.state.live:
        if not force:
            hint = "zone stop ends it; force does both"
            raise WrongState(f"zone {zone.name}", expected="it stopped", got=f"it is {zone.state.value}", hint=hint)
        await stop(core, zone, 0.0)
    if zone.state.live and zone.run is not None:  # the next zoned's to end: that it is not wanted is on disk
        raise NotPrepared(f"zone {zone.name}", expected="it ended", got="zoned is ending", temporary=True)
    await ending.forget(core, zone)
    return info(zone)


async def wait(core: Core, zone: Zone, what: str, timeout_s: float) -> ZoneInfo:
    """See Manager.wait."""
    deadline_s = timeout_s or None
    if what in ("exited", ""):
        await _in_time(core, zone, lambda: not zone.state.live, "ended", deadline_s)
    elif what == "removed":
        await _in_time(core, zone, lambda: zone.removed, "been removed", deadline_s)
    elif what == "running":
        await _in_time(core, zone, lambda: _up(zone) or not zone.state.live, "come to run", deadline_s)
        if not _up(zone):
            raise await failure(core, zone, "ended before it ran")
    elif what == "ready":
        await _until_ready(core, zone, deadline_s)
    elif what == "ports":
        await _until_ready(core, zone, deadline_s)
        await _until_ports(core, zone, deadline_s)
    else:
        raise BadRequest("wait", expected="exited, running, ready, ports or removed", got=repr(what)[:80])
    return info(zone)


async def _in_time(core: Core, zone: Zone, predicate: object, what: str, timeout_s: float | None) -> None:
    assert callable(predicate)
    if not await until(zone.changes, predicate, core.clock, timeout_s):
        raise WaitTimeout(f"zone {zone.name}", got=f"it has not {what} within {timeout_s:g} s")


async def _until_ready(core: Core, zone: Zone, timeout_s: float | None, *, patient: bool = True) -> None:
    """patient: a zone that comes again is waited for; otherwise it is its first run that counts."""

    def ran() -> bool:
        return _ran(zone) or (not patient and bool(zone.ready))

    def decided() -> bool:
        return ran() or not zone.state.live or (not patient and _given_up(zone))

    await _in_time(core, zone, decided, "started its workload", timeout_s)
    if not ran():
        raise await failure(core, zone, "ended before its workload ran")


async def _until_ports(core: Core, zone: Zone, timeout_s: float | None) -> None:
    """Each published port is served in the zone; of a range, one: the others are often for what comes later."""
    deadline = None if timeout_s is None else core.clock.monotonic() + timeout_s
    for rules in ports.ranges(zone.ports):
        pause_s = PORT_POLL_S
        while True:
            run = zone.run
            if run is None or run.network is None or run.reason or not zone.state.live:
                await until(zone.changes, lambda: zone.run is None or not zone.run.reason, core.clock, END_PATIENCE_S)
                raise await failure(core, zone, f"ended before port {_shown(rules)} answered")
            count = zone.changes.count
            if served := await _served_of(core, run, rules):
                break
            if deadline is not None and core.clock.monotonic() > deadline:
                got = f"nothing listens on its port {_shown(rules)} after {timeout_s:g} s"
                raise WaitTimeout(f"zone {zone.name}", got=got)
            await first(zone.changes.after(count), core.clock.sleep(pause_s))
            pause_s = min(pause_s * 1.5, LONGEST_PORT_POLL_S)
        zone.say("port", str(served.zone_port))


def _shown(rules: Sequence[PortRule]) -> str:
    """`80`, `53/udp`, `5000-5010`."""
    numbers = str(rules[0].zone_port) if len(rules) == 1 else f"{rules[0].zone_port}-{rules[-1].zone_port}"
    return numbers if rules[0].protocol == "tcp" else f"{numbers}/{rules[0].protocol}"


async def _served_of(core: Core, run: Run, rules: Sequence[PortRule]) -> PortRule | None:
    for rule in rules:
        if await _is_served(core, run, rule):
            return rule
    return None


async def _is_served(core: Core, run: Run, rule: PortRule) -> bool:
    """TCP is asked from inside the zone's network. UDP has nothing that asks without a meaning: the agent looks."""
    assert run.network is not None
    if rule.protocol != "udp":
        return await core.thread(run.network.answers, rule.zone_port)
    if run.link is None:
        return run.joined  # a zone without an agent: nobody can tell
    try:
        found = await run.link.call("listening", {"port": rule.zone_port})
    except AgentFault as fault:
        return fault.reason == "method"  # an agent of before this question; without a reason, a channel that mends
    return found.get("open") is True
