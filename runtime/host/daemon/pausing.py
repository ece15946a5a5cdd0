"""What the zone's agent does to the cgroup of a workload that runs: freeze it for a while, hold it to other limits."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.bundle.limits import LIMITS, lifted
from pipeline.bundle.model import Bundle, Confinement
from runtime.errors import RuntimeFault
from runtime.host.daemon import confinement
from runtime.host.daemon.agent import MAIN
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import BadRequest, WrongState
from runtime.host.daemon.model import State, ZoneInfo
from runtime.host.daemon.sessions import call
from runtime.host.daemon.zone import Run, Zone, info

FREEZE_TIMEOUT_S = 30.0
_MOST_CHARACTERS = 4096


async def pause(core: Core, zone: Zone, *, paused: bool) -> ZoneInfo:
    """See Manager.pause. Where it comes to nothing, or nobody waits for it any more, the workload goes on."""
    async with contextlib.AsyncExitStack() as changing:
        await changing.enter_async_context(zone.changing)
        subject, run = f"zone {zone.name}", zone.run
        check_has_workload(zone.bundle)
        if info(zone).state is not State.READY or run is None:
            raise WrongState(subject, expected="its workload running", got=f"it is {info(zone).state.value}")
        try:
            reply = await _freeze(zone, run, paused=paused)
        except asyncio.CancelledError:
            if not (paused and run.paused):  # what its agent was asked for may have been done already
                core.background(_go_on(core, zone, run, changing.pop_all()))
            raise
        if reply.get("state") not in ("paused", "running"):
            raise WrongState(subject, expected="its workload running", got="it has just ended")
        await _becomes(core, zone, run, paused=paused)
        return info(zone)


async def _freeze(zone: Zone, run: Run, *, paused: bool) -> dict[str, Any]:
    try:
        reply = await call(zone, "pause" if paused else "resume", {"id": MAIN}, FREEZE_TIMEOUT_S)
        run.frozen_in = run.link.hello if run.link is not None else None
        return reply
    except RuntimeFault:
        if paused and not run.paused:  # what the kernel was asked for may come about later
            with contextlib.suppress(RuntimeFault):
                await call(zone, "resume", {"id": MAIN}, FREEZE_TIMEOUT_S)
        raise


async def _go_on(core: Core, zone: Zone, run: Run, changing: contextlib.AsyncExitStack) -> None:
    """Have the workload go on before any other change; changing ends the one that was given up."""
    async with changing:
        with contextlib.suppress(RuntimeFault):
            await _freeze(zone, run, paused=False)
            await _becomes(core, zone, run, paused=False)


async def _becomes(core: Core, zone: Zone, run: Run, *, paused: bool) -> None:
    if run.paused != paused:
        run.paused = paused
        await core.tell("zone.paused" if paused else "zone.unpaused", zone)
        zone.changes.tell()


def check_has_workload(bundle: Bundle) -> None:
    """Raises BadRequest for a zone that only idles for what is put into it."""
    if not bundle.process.argv:
        raise BadRequest(f"zone {bundle.name}", expected="a workload of its own", got="none")


def check_limits(bundle: Bundle, change: Mapping[str, str]) -> None:
    """Raises BadRequest. What the values mean, the zone's kernel decides."""
    if not change:
        return
    check_has_workload(bundle)
    for file, text in change.items():
        if file not in LIMITS:
            expected = f"one of {', '.join(LIMITS)}"
            raise BadRequest(f"zone {bundle.name}, limit", expected=expected, got=repr(file)[:60])
        if not text or len(text) > _MOST_CHARACTERS or not text.replace("\n", "").isprintable():
            raise BadRequest(f"zone {bundle.name}, limit {file}", expected="what its file takes", got=repr(text)[:80])


def with_limits(wanted: Confinement | None, change: Mapping[str, str]) -> Confinement | None:
    """What a bundle says, with other limits."""
    if not change:
        return wanted
    before = wanted or Confinement()
    return dataclasses.replace(before, limits={**before.limits, **change})


async def set_limits(zone: Zone, change: Mapping[str, str]) -> None:
    """Have a running workload's cgroup hold it to these, too.

    All that there are are sent: the agent keeps them for the container's next start.
    """
    await _send(zone, _limits(zone.bundle) | dict(change))


async def limits_back(zone: Zone, change: Mapping[str, str]) -> None:
    """As they were before, those that nobody had set as the kernel has them."""
    before = _limits(zone.bundle)
    await _send(zone, before | {file: text for file in change if file not in before and (text := lifted(file))})


def _limits(bundle: Bundle) -> dict[str, str]:
    return dict(bundle.confinement.limits) if bundle.confinement else {}


async def _send(zone: Zone, limits: dict[str, str]) -> None:
    await call(zone, "update", {"id": MAIN, "limits": confinement.limit_keys(limits)})
