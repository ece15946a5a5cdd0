"""The frames of agent channels for somebody who looks on: of those that are open, and of each opened later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from runtime.host.daemon.agent import AgentLink
from runtime.host.daemon.core import Core
from runtime.host.daemon.zone import Zone

WAITING = 1000  # frames that wait for whoever looks on


async def snoop(core: Core) -> AsyncIterator[tuple[str, Any]]:
    """See Manager.snoop."""
    frames: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(WAITING)
    left_out = 0
    closers: dict[str, Callable[[], None]] = {}

    def look_at(zone: Zone, link: AgentLink) -> None:
        """A zone has one channel at a time; the one before, and those of zones that went, are let go."""

        def seen(*frame: Any) -> None:
            nonlocal left_out
            if frames.full():
                left_out += 1
            else:
                frames.put_nowait((zone.id, frame))

        for gone in [zone_id for zone_id in closers if zone_id == zone.id or zone_id not in core.zones]:
            closers.pop(gone)()
        closers[zone.id] = link.snoop(seen)

    core.link_takers.append(look_at)
    try:
        for zone in core.zones.values():
            if zone.run is not None and zone.run.link is not None:
                look_at(zone, zone.run.link)
        while True:
            if left_out and frames.empty():
                skipped, left_out = left_out, 0
                yield "", skipped
            yield await frames.get()
    finally:
        core.link_takers.remove(look_at)
        for close in closers.values():
            close()
