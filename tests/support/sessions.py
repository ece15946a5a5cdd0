"""What the sessions of made-up managers have in common: outputs that a test or the session itself puts in a queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

from runtime.host.daemon.model import Output
from runtime.host.daemon.sessions import Session


class QueuedSession(Session):
    """ended: set once whoever had the session is done with it."""

    def __init__(self, most: int = 0) -> None:
        """most:  outputs that wait to be taken before who puts one waits as well; any number for 0."""
        self._outputs: asyncio.Queue[Output] = asyncio.Queue(most)
        self.ended = threading.Event()

    async def outputs(self) -> AsyncIterator[Output]:
        while True:
            output = await self._outputs.get()
            yield output
            if output.kind == "exit":
                return

    async def close(self) -> None:
        self.ended.set()
