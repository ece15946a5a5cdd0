"""The memory that a running zone is to grow by stays promised to it until its guest has taken it.

Its balloon driver takes what it was given page by page, as slowly as it likes: what is free meanwhile is not free for
others. A guest that never takes it keeps it from them only for so long.
"""

from __future__ import annotations

import logging

from runtime.boot.doors import DomainInfo
from runtime.boot.plan import SLACK_KIB
from runtime.errors import RuntimeFault
from runtime.host.daemon.admission import OVERHEAD_KIB
from runtime.host.daemon.core import Core
from runtime.host.daemon.edge import KIB_PER_PAGE
from runtime.host.daemon.zone import Run, Zone

log = logging.getLogger(__name__)

LONGEST_S = 300.0
_LOOK_AGAIN_S = 1.0


def wanted_kib(memory_mib: int) -> int:
    """What is promised to a zone of so much memory."""
    return (memory_mib << 10) + OVERHEAD_KIB


def hold(core: Core, zone: Zone, run: Run, memory_mib: int) -> None:
    """Keep the promise for a run that was asked to have so much, until it has, has ended, or has had its time."""
    core.admission.keep(run.uuid, wanted_kib(memory_mib))
    core.background(_until_taken(core, zone, run, memory_mib))


def has_taken(info: DomainInfo, memory_mib: int) -> bool:
    """Does Xen count as much to the domain?"""
    return (memory_mib << 10) - info.tot_pages * KIB_PER_PAGE <= SLACK_KIB


async def _until_taken(core: Core, zone: Zone, run: Run, memory_mib: int) -> None:
    deadline = core.clock.monotonic() + LONGEST_S
    while zone.run is run and _is_kept(core, run, memory_mib) and not await _has_taken(core, run, memory_mib):
        if core.clock.monotonic() >= deadline:
            log.warning("zone %s has not taken its %d MiB in %g s", zone.name, memory_mib, LONGEST_S)
            break
        await core.clock.sleep(_LOOK_AGAIN_S)
    if _is_kept(core, run, memory_mib):
        core.admission.settle(run.uuid)


def _is_kept(core: Core, run: Run, memory_mib: int) -> bool:
    """Another amount is another update's, which sees to it."""
    return core.admission.promised(run.uuid) == wanted_kib(memory_mib)


async def _has_taken(core: Core, run: Run, memory_mib: int) -> bool:
    try:
        info = (await core.thread(core.edge.domains)).get(run.uuid)
    except RuntimeFault as fault:
        log.debug("%s", fault)
        return False
    return info is not None and has_taken(info, memory_mib)
