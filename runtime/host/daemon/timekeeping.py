"""What a zone has of its host as long as it runs: the time, and fresh entropy.

A guest reads Xen's wall clock once, at its boot (xen_get_wallclock in arch/x86/xen/time.c): what the host's clock is
set by later it never learns. And a host that is itself a copy of another, or a machine that was put to sleep, has zones
whose pools were copied with it.
"""

from __future__ import annotations

import logging
import os

from pipeline.bundle.capabilities import expanded
from runtime.errors import RuntimeFault
from runtime.host.agentlink.model import AgentFault
from runtime.host.daemon.agent import AgentLink
from runtime.host.daemon.core import Core
from runtime.host.daemon.zone import Zone

log = logging.getLogger(__name__)

INTERVAL_S = 600.0
OFF_S = 1.0  # less is left alone: setting a clock makes time jump
SEED_BYTES = 32
_NO_METHOD = "method"  # the reason of an agent that is older than what it is asked


async def keep(core: Core, zone: Zone, link: AgentLink) -> None:
    """See to both as each channel begins, and now and then; until cancelled, or the agent knows of neither."""
    while True:
        await link.connected.wait()
        for see_to in (_seed, _set):
            try:
                await see_to(core, zone, link)
            except AgentFault as fault:
                if fault.reason == _NO_METHOD:
                    return
                log.debug("zone %s: %s", zone.name, fault)
            except RuntimeFault as fault:  # it may be going
                log.debug("zone %s: %s", zone.name, fault)
        await core.clock.sleep(INTERVAL_S)


async def _seed(core: Core, zone: Zone, link: AgentLink) -> None:
    await link.call("reseed", {"seed": os.urandom(SEED_BYTES).hex()})


async def _set(core: Core, zone: Zone, link: AgentLink) -> None:
    """A workload that may set the clock itself keeps it itself."""
    confinement = zone.bundle.confinement
    rights = confinement.capabilities if confinement is not None else None
    if rights is not None and "SYS_TIME" in expanded(rights.bounding):
        return
    asked = core.clock.now()
    told = (await link.call("clock")).get("unix_ns")
    if not isinstance(told, int) or isinstance(told, bool) or not 0 <= told < 1 << 63:
        return
    now = core.clock.now()
    off_s = told / 1e9 - (asked + now) / 2
    if abs(off_s) <= OFF_S + (now - asked) / 2:  # the answer may have been under way for all of that
        return
    await link.call("clock", {"unix_ns": int(core.clock.now() * 1e9)})
    log.info("zone %s: its clock was off by %.3f s, and has been set", zone.name, off_s)
    await core.tell("zone.clock", zone, off_s=f"{off_s:.3f}")
