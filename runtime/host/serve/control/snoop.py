"""The frames of the agent channels for a caller who looks on: never waited for, counted where there is no room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from runtime.host.api import control_pb2 as pb
from runtime.init.channel import frames

HOST = "host"  # the end of every channel that is not a zone
TO_ZONE = ">"  # runtime.host.agentlink.model.Snooper
BATCH = 64
QUEUE = 1024


class SnoopQueue:
    """Packets between the channels, which do not wait, and a caller; what has no room is counted."""

    def __init__(self) -> None:
        self._packets: list[pb.SnoopIdmPacket] = []
        self._skipped = 0
        self._bell = asyncio.Event()

    async def fill(self, frames: AsyncIterator[tuple[str, Any]]) -> None:
        """Take frames until cancelled."""
        async for zone_id, frame in frames:
            if zone_id:
                self.put(packet(zone_id, *frame))
            else:
                self.skip(frame)

    def put(self, found: pb.SnoopIdmPacket) -> None:
        """Take one, or count it."""
        if len(self._packets) >= QUEUE:
            self._skipped += 1
        else:
            self._packets.append(found)
        self._bell.set()

    def skip(self, count: int) -> None:
        """So many were left out before they came here."""
        self._skipped += count
        self._bell.set()

    async def batch(self) -> pb.SnoopIdmReply:
        """What has come; waits for something."""
        await self._bell.wait()
        taken, self._packets = self._packets[:BATCH], self._packets[BATCH:]
        reply = pb.SnoopIdmReply(packets=taken, skipped=self._skipped)
        self._skipped = 0
        if not self._packets:
            self._bell.clear()
        return reply


def packet(zone_id: str, direction: str, kind: int, fd: int, stream: int, payload: bytes) -> pb.SnoopIdmPacket:
    """A frame as it is on the wire, with both its ends; a message in several frames whole; bytes that are no frame."""
    ends = (HOST, zone_id) if direction == TO_ZONE else (zone_id, HOST)
    if kind == frames.LOST:
        data = payload
    elif kind in frames.JSON_KINDS:
        data = frames.message(kind, stream, payload)
    else:
        data = frames.frame(kind, stream, payload, fd)
    return pb.SnoopIdmPacket(packet=data, to=ends[1], **{"from": ends[0]})
