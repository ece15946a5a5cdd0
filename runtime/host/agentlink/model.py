"""What the core asks of a zone's agent, and what the agent's link asks of its transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol

from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    import asyncio

    from runtime.boot.channel import Receiver

Json = dict[str, Any]
Arrival = tuple[int, int, bytes | Json]
"""(frames.DATA, fd, bytes), (frames.EOF, fd, b"") or (frames.EVENT, 0, the event)."""
Snooper = Callable[[str, int, int, int, bytes], None]
"""(direction ">" to the zone or "<" from it, kind, fd, stream, payload); sees frames, messages whole.

Of what is no frame the kind is frames.LOST, and the payload its bytes, as far as a frame goes.
"""


class AgentFault(RuntimeFault):
    """The agent of a zone did not do what it was asked. `subject` names the zone.

    reason:  the agent's own word for what went wrong (such as "not-found"), "" where the fault is not of its making:
             a channel that is down, a time that ran out, a protocol that was broken.
    Effects: `reason` is not one of the sentence's fields, so a pickled copy carries "".
    """

    reason: str = ""


class Transport(Protocol):
    """Carries bytes. All of it but close() is called in the loop's thread, and calls its receiver there."""

    def start(self, receiver: Receiver) -> None:
        """Give bytes to `receiver` from now on; it hears connected() or disconnected() at once, if one is so."""

    def write(self, data: bytes) -> int:
        """How many bytes there was room for. After fewer than all, the receiver hears writable()."""

    def close(self) -> None:
        """Let go. May block, and so is called in another thread. Twice is fine."""


class Stream(Protocol):
    """One open call: bytes of descriptors both ways, events, and a result at its end."""

    def __aiter__(self) -> AsyncIterator[Arrival]:
        """What comes, in order within a descriptor, until the result. Reading on is what gives the agent credit."""

    async def write(self, fd: int, data: bytes) -> None:
        """Send bytes of a descriptor; returns when all of them are on their way. Raises AgentFault."""

    async def eof(self, fd: int) -> None:
        """Say that no more bytes of a descriptor follow. Raises AgentFault."""

    async def event(self, event: Json) -> None:
        """Send an event, such as {"resize":[rows,cols]}. Raises AgentFault."""

    def acknowledge(self, fd: int, count: int) -> None:
        """Give credit for bytes that are safe now: of a stream that was opened with `acknowledged`."""

    async def result(self, timeout_s: float | None = None) -> Json:
        """The result; what comes before it must be read, or the agent waits. Raises AgentFault."""

    def cancel(self) -> None:
        """Nobody waits any more: the agent ends what the stream runs. Twice, or after the result, is fine."""


class Agent(Protocol):
    """A zone's agent, as the core sees it."""

    connected: asyncio.Event
    hello: Json

    async def call(self, method: str, params: Json | None = None, timeout_s: float = 10.0) -> Json:
        """Call a method that streams nothing. Raises AgentFault."""

    async def open(self, method: str, params: Json | None = None, *, acknowledged: bool = False) -> Stream:
        """Begin a call that streams. Raises AgentFault where no session is."""

    def on_note(self, callback: Callable[[Json], None]) -> Callable[[], None]:
        """Hear every note of the agent, as it comes; returns what ends that."""

    def snoop(self, callback: Snooper) -> Callable[[], None]:
        """See every frame; returns what ends that."""
