"""What an agent channel carries: round trips of its smallest call, and bytes through a process in the zone.

`await measure(agent)` works with every model.Agent whose container has cat, head and sh. Without a zone, over a socket
pair and with the tests' fake agent: PYTHONPATH=.:tests .venv/bin/python tests/bench/channel.py
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

from runtime.host.agentlink.model import Agent, Stream
from runtime.init.channel import frames

TRIPS = 200
BYTES = 4 << 20


async def measure(agent: Agent, *, container: str = "main", trips: int = TRIPS, size: int = BYTES) -> dict[str, float]:
    """Seconds of a ping (median and the slowest of a hundred), MB/s echoed, to the zone, and from it."""
    times = sorted([await _seconds(agent.call("ping")) for _ in range(trips)])
    return {
        "ping_median_s": statistics.median(times),
        "ping_slowest_of_100_s": times[trips * 99 // 100],
        "echo_mb_s": size / await _seconds(echo(agent, container, size)) / 1e6,
        "to_zone_mb_s": size / await _seconds(_to_zone(agent, container, size)) / 1e6,
        "from_zone_mb_s": size / await _seconds(_from_zone(agent, container, size)) / 1e6,
    }


async def echo(agent: Agent, container: str, size: int) -> None:
    """So many bytes go to a process and come back; raises AssertionError where others do."""
    stream = await _run(agent, container, "cat")
    data = bytes(range(256)) * (size // 256)
    _, back = await asyncio.gather(_feed(stream, data), _read(stream))
    assert back == data, "the echo differs"
    await stream.result()


async def lost(agent: Agent, container: str, size: int) -> int:
    """How many of so many bytes do not come back from a process as they were sent."""
    stream = await _run(agent, container, "cat")
    data = bytes(range(256)) * (size // 256)
    _, back = await asyncio.gather(_feed(stream, data), _read(stream))
    await stream.result()
    if back == data:
        return 0
    return abs(len(data) - len(back)) + sum(there != here for there, here in zip(data, back, strict=False))


async def _to_zone(agent: Agent, container: str, size: int) -> None:
    stream = await _run(agent, container, "sh", "-c", "cat >/dev/null")
    await asyncio.gather(_feed(stream, bytes(size)), _read(stream))
    await stream.result()


async def _from_zone(agent: Agent, container: str, size: int) -> None:
    stream = await _run(agent, container, "head", "-c", str(size), "/dev/zero")
    _, data = await asyncio.gather(stream.eof(0), _read(stream))
    assert len(data) == size, f"{len(data)} bytes came, not {size}"
    await stream.result()


async def _run(agent: Agent, container: str, *argv: str) -> Stream:
    return await agent.open("exec", {"container": container, "process": {"argv": list(argv), "env": [], "cwd": "/"}})


async def _feed(stream: Stream, data: bytes) -> None:
    for at in range(0, len(data), 1 << 16):
        await stream.write(0, data[at : at + (1 << 16)])
    await stream.eof(0)


async def _read(stream: Stream) -> bytes:
    got = bytearray()
    async for kind, fd, data in stream:
        if kind == frames.DATA and fd == 1 and isinstance(data, bytes):
            got += data
    return bytes(got)


async def _seconds(work: Any) -> float:
    started = time.monotonic()
    await work
    return time.monotonic() - started


async def without_a_zone(trips: int = TRIPS, size: int = BYTES) -> dict[str, float]:
    """The protocol's own cost: both ends in one process."""
    from support import fakeagent

    async with fakeagent.linked() as (link, _):
        return await measure(link, trips=trips, size=size)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(without_a_zone())))
