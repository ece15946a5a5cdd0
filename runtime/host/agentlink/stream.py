"""One stream at the host's end: what came and was not read yet, credit both ways, the result."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.host.agentlink import strictjson
from runtime.host.agentlink.model import AgentFault, Arrival, Json
from runtime.init.channel import frames
from runtime.init.channel.credit import CreditError, Credits

if TYPE_CHECKING:
    from runtime.host.agentlink.link import AgentLink

MAX_EVENT_BYTES = 16 << 10
MAX_UNREAD_EVENTS = 64
_MAX_UNREAD_PARTS = 64  # beyond, bytes join what waits of their descriptor, whatever came between


@dataclass
class _Part:
    """What waits to be read: bytes, the end of a descriptor, or the text of an event."""

    kind: int
    fd: int
    data: bytearray


class AgentStream:
    """An open call. Made by AgentLink.open; `async with` cancels it at exit, unless its result has come."""

    def __init__(self, link: AgentLink, number: int, method: str, *, acknowledged: bool) -> None:
        self.number, self.method = number, method
        self._link, self._acknowledged = link, acknowledged
        self._credits = Credits()
        self._parts: deque[_Part] = deque()
        self._last: dict[int, _Part] = {}
        self._events = 0
        self._ended: set[int] = set()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._handed_out: tuple[int, int] | None = None
        self._result: Json | None = None
        self._fault: AgentFault | None = None

    # -- for its user

    async def __aenter__(self) -> AgentStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[Arrival]:
        return self

    async def __anext__(self) -> Arrival:
        self._consumed()
        while not self._parts:
            if self._fault is not None:
                raise self._fault
            if self._result is not None:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        part = self._parts.popleft()
        if part.kind == frames.EVENT:
            self._events -= 1
            return part.kind, 0, self._event(part)
        if self._last.get(part.fd) is part:
            del self._last[part.fd]
        if part.kind == frames.DATA:
            self._handed_out = (part.fd, len(part.data))
        return part.kind, part.fd, bytes(part.data)

    async def write(self, fd: int, data: bytes) -> None:
        """Send bytes of a descriptor; a frame at a time, so that streams take turns."""
        rest = memoryview(data)
        while rest:
            self._check_open()
            count = min(len(rest), self._credits.may_send(fd), frames.MAX_PAYLOAD_BYTES)
            if not count:
                self._room.clear()
                await self._room.wait()
            elif self._link.full:
                await self._link.drained()
            else:
                self._credits.sent(fd, count)
                self._link.send(frames.DATA, self.number, bytes(rest[:count]), fd)
                rest = rest[count:]

    async def eof(self, fd: int) -> None:
        """Say that no more bytes of a descriptor follow."""
        self._check_open()
        self._link.send(frames.EOF, self.number, fd=fd)

    async def event(self, event: Json) -> None:
        """Send an event."""
        self._check_open()
        self._link.send_json(frames.EVENT, self.number, event)

    def acknowledge(self, fd: int, count: int) -> None:
        """Give credit for bytes that are safe now."""
        self._give(fd, self._credits.consumed(fd, count, at_once=True))

    async def result(self, timeout_s: float | None = None) -> Json:
        """The result. Raises AgentFault."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._result is None and self._fault is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise self._link.fault(f"no answer to {self.method} within {timeout_s:g} s", temporary=True) from None
        if self._result is None:
            assert self._fault is not None
            raise self._fault
        return self._result

    def cancel(self) -> None:
        """Nobody waits any more. What is read or awaited of it afterwards fails."""
        if self._result is None and self._fault is None:
            self._link.send(frames.CANCEL, self.number)
            self.fail(self._link.fault(f"{self.method} was cancelled"))

    # -- for the link

    def arrived(self, kind: int, fd: int, payload: bytes) -> None:
        """Take a frame of this stream. Raises ValueError for one that breaks the protocol."""
        if kind == frames.CREDIT:
            self._credits.given(fd, frames.credit_of(payload))
            self._room.set()
        elif kind == frames.DATA:
            self._data(fd, payload)
        elif kind == frames.EOF:
            if fd in self._ended:
                raise CreditError(f"expected one EOF of descriptor {fd}, got two")
            self._ended.add(fd)
            self._put(_Part(kind, fd, bytearray()))
        elif kind == frames.EVENT:
            if len(payload) > MAX_EVENT_BYTES or self._events >= MAX_UNREAD_EVENTS:
                raise CreditError(f"expected {MAX_UNREAD_EVENTS} unread events of {MAX_EVENT_BYTES} bytes, got more")
            self._events += 1
            self._put(_Part(kind, fd, bytearray(payload)))
        elif kind == frames.RESULT:
            self._conclude(strictjson.loads(payload))
        else:
            raise CreditError(f"expected a frame of the agent, got {frames.NAMES[kind]}")

    def fail(self, fault: AgentFault) -> None:
        """End it without a result; what came before can still be read."""
        if self._result is None and self._fault is None:
            self._fault = fault
            self._over()

    # -- within

    def _conclude(self, result: Json) -> None:
        if isinstance(ok := result.get("ok"), dict):
            self._result = ok
            self._over()
            return
        error = result.get("error")
        if not isinstance(error, dict):
            raise CreditError('expected a result with "ok" or "error", got neither')
        fault = self._link.fault(strictjson.words(error.get("sentence")) or f"{self.method} failed")
        fault.reason = strictjson.words(error.get("reason"))
        self.fail(fault)

    def _over(self) -> None:
        self._link.forget(self)
        self._news.set()
        self._room.set()

    def _check_open(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._result is not None:
            raise self._link.fault(f"{self.method} is over")

    def _data(self, fd: int, payload: bytes) -> None:
        if fd in self._ended:
            raise CreditError(f"expected no bytes behind the EOF of descriptor {fd}, got {len(payload)}")
        self._credits.received(fd, len(payload))
        last = self._last.get(fd)
        # Bytes one by one must not cost an object each; the order between descriptors is kept for the first ones only.
        if last is not None and (last is self._parts[-1] or len(self._parts) >= _MAX_UNREAD_PARTS):
            last.data += payload
        elif payload:
            self._last[fd] = part = _Part(frames.DATA, fd, bytearray(payload))
            self._put(part)

    def _put(self, part: _Part) -> None:
        self._parts.append(part)
        self._news.set()

    def _event(self, part: _Part) -> Json:
        try:
            return strictjson.loads(bytes(part.data))
        except ValueError as problem:
            self._link.broken(self, problem)
            assert self._fault is not None
            raise self._fault from None

    def _consumed(self) -> None:
        handed_out, self._handed_out = self._handed_out, None
        if handed_out is not None and not self._acknowledged:
            self._give(handed_out[0], self._credits.consumed(*handed_out))

    def _give(self, fd: int, count: int) -> None:
        if count and self._result is None and self._fault is None:
            self._link.send(frames.CREDIT, self.number, frames.CREDIT_PAYLOAD.pack(count), fd)
