"""Follows a running zone: what its init reports in xenstore, what its agent tells, what its workload prints."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from runtime.boot.model import ZoneState
from runtime.errors import RuntimeFault
from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon import exits
from runtime.host.daemon.agent import MAIN, AgentLink
from runtime.host.daemon.core import Core
from runtime.host.daemon.logwriter import LogWriter
from runtime.host.daemon.model import State
from runtime.host.daemon.signals import Pace, first
from runtime.host.daemon.zone import Run, Zone
from runtime.init.channel import frames

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 2.0  # a watch is a hint
_LOOK_SELDOM_S = 10.0  # of a zone that is ready nothing is to come but its end, of which Xen tells as well
_AGAIN_S = 0.2
_REFUSED_AGAIN_S = 5.0
_LONGEST_BOOT_S = 1e6
_MAX_NOTES = 512
_NOTES_AT_ONCE, _NOTES_PER_SECOND = 256, 4.0
_MAX_WORD = 64
_MAX_SOCKETS = 4096  # that are remembered of a zone, as many as its agent tells of both protocols and families
_MAX_FIELDS, _MAX_TEXT = 32, 1024  # of a note

Json = Mapping[str, Any]


async def ready(core: Core, zone: Zone, run: Run) -> None:
    """Its workload runs, or has run."""
    if run.ready:
        return
    run.ready, zone.ready = True, core.clock.now()
    if zone.state is State.RUNNING:
        zone.state = State.READY
    zone.say("workload")
    await core.save(zone, "zone.ready")


async def take_state(core: Core, zone: Zone, run: Run, state: ZoneState) -> None:
    """What its init has reported in xenstore. The guest wrote it: shown and compared, never trusted."""
    run.zone_timings = dict(state.timings or run.zone_timings)
    run.phase = state.phase or run.phase
    if state.exit and run.told is None:
        run.told = exits.from_xenstore(state.exit, oom=run.oom)
    if run.phase == "workload" or (run.told and not run.told.reason):
        await ready(core, zone, run)
    zone.changes.tell()


async def follow_state(core: Core, zone: Zone, run: Run) -> None:
    """Look whenever there is news, and now and then in any case."""
    domain = run.domain
    assert domain is not None
    pending = False

    def notify() -> None:
        nonlocal pending
        if not pending:  # a zone may write its nodes as often as it likes
            pending = True
            core.soon(run.news.tell)

    def watch() -> None:
        run.watch = core.edge.watch_state(domain, notify)  # here, not by whoever waits: they may have been cancelled

    while True:
        count, pending = run.news.count, False
        try:
            if run.watch is None:
                await core.thread(watch)
            assert run.watch is not None
            run.watch.take()
            await take_state(core, zone, run, await core.thread(domain.state))
        except RuntimeFault as fault:
            log.debug("zone %s: %s", zone.name, fault)  # it may be going
        await first(run.news.after(count), core.clock.sleep(_LOOK_SELDOM_S if run.ready else _LOOK_AGAIN_S))


async def follow_agent(core: Core, zone: Zone, run: Run, link: AgentLink) -> None:
    """Take what the agent tells, in order: each session's HELLO says what there is, its notes what changes."""
    heard: asyncio.Queue[tuple[bool, Json]] = asyncio.Queue(_MAX_NOTES)
    run.notes = heard
    known: Json | None = None

    def greeted() -> None:
        nonlocal known
        if link.connected.is_set() and link.hello is not known and not heard.full():
            known = link.hello
            heard.put_nowait((True, known))

    def noted(note: Json) -> None:
        greeted()
        if not heard.full():  # a zone that floods loses notes of its own; its exit is in xenstore too
            heard.put_nowait((False, _kept(note)))

    async def watch_sessions() -> None:
        while True:
            await link.connected.wait()
            greeted()
            await core.clock.sleep(_LOOK_AGAIN_S)

    async def take() -> None:
        # Each may become an event, of which a host keeps so many, or a line of zoned's log: no zone fills either.
        pace = Pace(core.clock, at_once=_NOTES_AT_ONCE, per_second=_NOTES_PER_SECOND)
        while True:
            is_hello, document = await heard.get()
            try:
                await pace.turn()
                await (_take_hello if is_hello else take_note)(core, zone, run, document)
            finally:
                heard.task_done()

    end = link.on_note(noted)
    try:
        await asyncio.gather(watch_sessions(), take())
    finally:
        end()


def _kept(note: Json) -> Json:
    """What anybody here reads of a note, which may wait a while: one of many small things takes a megabyte."""
    fields = itertools.islice(note.items(), _MAX_FIELDS)
    kept = ((key, value[:_MAX_TEXT] if isinstance(value, str) else value) for key, value in fields)
    return {key[:_MAX_WORD]: value for key, value in kept if isinstance(value, (str, int, float))}


async def _take_hello(core: Core, zone: Zone, run: Run, hello: Json) -> None:
    kind, _, rest = str(hello.get("outcome", "")).partition(" ")
    if kind == "failed" and run.told is None:  # its boot: there is no container that could tell
        reason, _, sentence = rest.partition(" ")
        run.told = exits.from_agent({"failed": reason, "sentence": sentence or reason}, oom=run.oom)
    boot = hello.get("boot")
    if isinstance(boot, Mapping):
        run.zone_timings = {
            str(name)[:_MAX_WORD]: float(at)
            for name, at in boot.items()
            if isinstance(at, (int, float)) and abs(at) < _LONGEST_BOOT_S  # more than a float holds would be no number
        }
    zone.changes.tell()
    for container in _list(hello.get("containers")):
        if container.get("id") == MAIN:
            if run.frozen_in is not hello:
                run.paused = container.get("state") == "paused"
            await _main_is(core, zone, run, container)
        for heard in core.note_takers:
            await heard(zone, str(container.get("id", ""))[:_MAX_WORD], {"event": "listed", **container})


async def _main_is(core: Core, zone: Zone, run: Run, container: Json) -> None:
    if (told := exits.from_agent(container.get("exit"), oom=run.oom)) is not None:
        run.told = told
    run.health = str(container.get("health", ""))[:_MAX_WORD]  # no note tells how it begins, nor what a zoned missed
    if container.get("state") in ("running", "stopped", "paused"):
        await ready(core, zone, run)


async def take_note(core: Core, zone: Zone, run: Run, note: Json) -> None:
    """One unsolicited word of the agent."""
    event, container = str(note.get("event", ""))[:_MAX_WORD], str(note.get("container", MAIN))[:_MAX_WORD]
    if event == "phase":
        run.phase = str(note.get("name", ""))[:_MAX_WORD]
        if run.phase == "workload":
            await ready(core, zone, run)
    elif event == "oom":
        run.oom = run.oom or container == MAIN
        await core.tell("zone.oom", zone, container=container)
    elif event == "exit" and container == MAIN:
        run.told = exits.from_agent(note, oom=run.oom) or run.told
        if run.told and not run.told.reason:
            await ready(core, zone, run)
    elif event == "port":
        await _take_port(core, zone, run, note)
    elif event == "health":
        state = str(note.get("state", ""))[:_MAX_WORD]
        run.health = state if container == MAIN else run.health
        await core.tell("zone.health", zone, state=state, container=container)
    elif event == "failed":
        run.told = exits.from_agent({"failed": note.get("reason"), "sentence": note.get("sentence", "")}) or run.told
    elif event in ("lost", "warning"):
        log.warning("zone %s: %r", zone.name, str(note.get("sentence", ""))[:400])
    for heard in core.note_takers:
        await heard(zone, container, note)
    zone.changes.tell()


async def _take_port(core: Core, zone: Zone, run: Run, note: Json) -> None:
    """A socket listens, or no longer. Each session begins with all that do: what was told before is no news."""
    port = note.get("port")
    if not isinstance(port, int) or not 0 < port < 65536:
        return
    opened = note.get("state") != "closed"
    protocol = "udp" if note.get("protocol") == "udp" else "tcp"
    address = str(note.get("address", ""))[:_MAX_WORD]
    socket = (protocol, address, port)
    if opened and socket in run.listening:
        return
    run.listening.discard(socket)
    if opened and len(run.listening) < _MAX_SOCKETS:
        run.listening.add(socket)
    kind = "port.open" if opened else "port.closed"
    await core.tell(kind, zone, port=str(port), address=address, protocol=protocol)


async def follow_log(core: Core, link: AgentLink, container: str, opened: Callable[[], LogWriter], run: str) -> None:
    """Store what a container prints until it has ended and all is acknowledged; from where the log ends, always.

    opened: its log; one that cannot be read, as by a host short of descriptors, is tried again: the output waits.
    """
    while True:
        try:
            writer = opened()
            break
        except OSError as problem:
            log.warning("log of %s: %s", container, problem)
            await core.clock.sleep(_REFUSED_AGAIN_S)
    try:
        writer.begin(run)
        while not await _follow_once(core, link, container, writer):
            pass
    finally:
        writer.close()  # what has ended stays listed, and must not hold a descriptor for that


async def _follow_once(core: Core, link: AgentLink, container: str, writer: LogWriter) -> bool:
    """Whether it has ended; otherwise the channel broke, or the agent refused, and a while has passed."""
    await link.connected.wait()
    try:
        offsets = writer.offsets
        asked = {str(stream): offset for stream, offset in offsets.items()}
        stream = await link.open("logs", {"container": container, "from": asked}, acknowledged=True)
        try:
            async for kind, fd, data in stream:
                if kind == frames.DATA and isinstance(data, bytes) and fd in offsets:
                    writer.append(fd, offsets[fd], data, core.clock.now())
                    offsets[fd] += len(data)
                    stream.acknowledge(fd, len(data))  # only now: it is stored
                elif kind == frames.EVENT and isinstance(data, dict):
                    gap, of = data.get("gap"), data.get("fd")
                    if isinstance(gap, int) and of in offsets:
                        offsets[of] += max(0, gap)
            await stream.result()
            return True
        finally:
            stream.cancel()
    except AgentFault as fault:
        # Without a reason it is the channel, which mends itself and says when.
        if fault.reason:
            log.warning("output of %s: %s", container, fault)
        await core.clock.sleep(_REFUSED_AGAIN_S if fault.reason else _AGAIN_S)
        return False


def _list(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []
