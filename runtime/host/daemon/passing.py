"""What passes through zones' networks: the flows there are, and captures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import WrongState
from runtime.host.daemon.model import ZoneFlows
from runtime.host.daemon.zone import Zone
from runtime.net.capture import CaptureRequest, Piece, read_piece
from runtime.net.engine.recorder import LONGEST_PIECE_BYTES


async def flows(core: Core, zones: list[Zone]) -> list[ZoneFlows]:
    """See Manager.flows."""
    found = []
    for zone in sorted(zones, key=lambda zone: zone.name):
        network = zone.run.network if zone.run is not None else None
        if network is None:
            continue
        try:
            rows, counters = await core.thread(network.flows), await core.thread(network.counters)
            found.append(ZoneFlows(zone.name, tuple(rows), counters))
        except RuntimeFault as fault:  # its engine may be starting, or ending: the others are shown all the same
            found.append(ZoneFlows(zone.name, problem=str(fault)))
    return found


async def capture(core: Core, zone: Zone, request: CaptureRequest) -> AsyncIterator[Piece]:
    """See Manager.capture."""
    network = zone.run.network if zone.run is not None else None
    if network is None:
        raise WrongState(f"zone {zone.name}", expected="it to run", got=zone.state.value)
    begun: list[Any] = []  # also by a thread whose waiter was cancelled
    try:
        await core.thread(lambda: begun.append(network.capture(request)))
        # The next packet is read when the reader has taken the one before: what waits meanwhile waits in the kernel,
        # which counts what it cannot keep.
        while packet := await core.loop.sock_recv(begun[0].pieces, LONGEST_PIECE_BYTES):
            yield read_piece(packet)
    except ConnectionError:
        pass  # its process was killed: the zone has ended
    finally:
        for running in begun:
            await core.thread(running.close)
