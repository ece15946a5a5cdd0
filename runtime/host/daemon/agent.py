"""What the core asks of the channel to a zone's agent: runtime/host/agentlink has it over hvc1, tests in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from runtime.boot.domain import Domain
from runtime.host.agentlink.model import Agent

MAIN = "main"  # the container of the zone's own workload


class AgentLink(Agent, Protocol):
    """The channel to one zone's agent; it mends itself for as long as the domain lives."""

    async def close(self) -> None:
        """Let go of the ring; the zone goes on."""


LinkMade = Callable[[AgentLink], None]
OpenLink = Callable[[Domain, LinkMade], Awaitable[AgentLink | None]]
