"""Both ends of an agent channel as programs, over a terminal: what a kill does to one of them, seen from the other.

python terminalagent.py agent           the zone's end, on its standard input, which is a raw terminal
python terminalagent.py host            the host's end, likewise: says "amid" on its standard output, amid bytes
"""

from __future__ import annotations

import asyncio
import os
import sys
import tty

from runtime.host.agentlink.link import AgentLink
from support.fakeagent import DescriptorTransport, FakeAgent


async def agent() -> None:
    tty.setraw(0)
    FakeAgent(0).logs = {1: bytes(range(256)) * 8192, 2: b""}
    await asyncio.Event().wait()


async def host() -> None:
    link = AgentLink(DescriptorTransport(0), "web")
    link.start()
    await link.connected.wait()
    logs, echo = await link.open("logs"), await link.open("exec", {"process": {"argv": ["code"]}})

    async def feed() -> None:
        while True:
            await echo.write(0, b"\xa5\0\1\x83" * 1024)

    task = asyncio.create_task(feed())
    read = 0
    async for _, _, data in logs:
        read += len(data)
        if read > 300_000:
            os.write(1, b"amid\n")
            break
    await asyncio.gather(task, asyncio.Event().wait())


if __name__ == "__main__":
    asyncio.run({"agent": agent, "host": host}[sys.argv[1]]())
