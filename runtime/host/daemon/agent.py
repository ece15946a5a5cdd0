"""What the core asks of the channel to a zone's agent: runtime/host/agentlink has it over hvc1, tests in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

Json = dict[str, Any]

MAIN = "main"  # the container of the zone's own workload


class AgentStream(Protocol):
    """One open stream. The guest's end of each fd is `eof`; the stream's, `result`."""

    def __aiter__(self) -> AsyncIterator[tuple[str, int, Any]]:
        """(kind, fd, data): ("data", fd, bytes), ("eof", fd, b""), ("event", 0, dict); ends with the stream."""

    async def write(self, fd: int, data: bytes) -> None:
        """Send bytes; waits for credit. Raises AgentGone."""

    async def eof(self, fd: int) -> None:
        """No more bytes on fd."""

    async def event(self, document: Json) -> None:
        """Send an EVENT, such as {"resize": [24, 80]}."""

    def consumed(self, fd: int, size_bytes: int) -> None:
        """Give credit for bytes taken from the stream: for a "logs" stream, after they are stored."""

    def cancel(self) -> None:
        """Nobody waits any more."""

    async def result(self) -> Json:
        """What RESULT said under "ok". Raises AgentError, AgentGone."""


class AgentLink(Protocol):
    """The channel to one zone's agent; it mends itself for as long as the domain lives."""

    @property
    def connected(self) -> asyncio.Event:
        """Set while the agent has answered the present session's HELLO."""

    @property
    def hello(self) -> Mapping[str, Any]:
        """The agent's last HELLO."""

    async def call(self, method: str, params: Json, timeout_s: float = 10.0) -> Json:
        """A stream without data: its result."""

    async def open(self, method: str, params: Json) -> AgentStream:
        """Open a stream."""

    def on_note(self, callback: Callable[[Json], None]) -> None:
        """Have each NOTE told, in order."""

    def snoop(self, callback: Callable[[Any], None]) -> Callable[[], None]:
        """Have each frame told; the returned function ends it."""

    async def close(self) -> None:
        """Let go of the ring; the zone goes on."""
