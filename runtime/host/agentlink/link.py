"""Sessions with a zone's agent: greeting, streams, notes, and beginning again after a loss."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime.host.agentlink import strictjson
from runtime.host.agentlink.model import AgentFault, Json, Snooper, Transport
from runtime.host.agentlink.stream import AgentStream
from runtime.init.channel import frames
from runtime.init.channel.jsonwrite import dumps
from runtime.init.channel.outbox import Outbox

if TYPE_CHECKING:
    from runtime.boot.domain import Domain

log = logging.getLogger(__name__)

VERSION = 1
MAX_NOTE_BYTES = 64 << 10
MAX_UNREAD_BYTES = 256 << 10  # of ours, that the zone does not read: beyond, it does not mean to
LINK_CREDIT_BYTES = frames.LINK_WINDOW_BYTES // 4  # given in pieces of at least this
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
_ANSWER_S = 5.0  # from the moment the zone has read the greeting
_STABLE_S = 10.0  # a session that lasted so long was none of a series of losses


class AgentLink:
    """A zone's agent. Implements model.Agent.

    connected:  set while a session is; for others to wait for.
    hello:      what the agent answered the greeting with.
    """

    def __init__(self, transport: Transport, zone: str, *, answer_s: float = _ANSWER_S) -> None:
        self.connected = asyncio.Event()
        self.hello: Json = {}
        self.zone = zone
        self._transport, self._answer_s = transport, answer_s
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, AgentStream] = {}
        self._number = 0
        self._outbox = Outbox(link_credit=False)
        self._drained = asyncio.Event()
        self._parser = frames.Parser(hunting=True)
        self._session = ""
        self._credited = 0
        self._losses = 0
        self._begun_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Handle | None = None
        self._up = self._closed = False
        self._why = "its agent has not answered yet"
        self._noted: list[Callable[[Json], None]] = []
        self._snoopers: list[Snooper] = []

    def start(self) -> None:
        """Begin: sessions come and go from here on."""
        self._transport.start(_Wire(self))

    async def close(self) -> None:
        """Let go of the transport; the zone goes on. Twice is fine."""
        if not self._closed:
            self._closed = True
            self._end("the link was closed")
        await asyncio.to_thread(self._transport.close)

    # -- for the core

    async def call(self, method: str, params: Json | None = None, timeout_s: float = 10.0) -> Json:
        """Call a method that streams nothing; waits for a session if there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                if not self._closed:
                    await self.connected.wait()
                async with await self.open(method, params) as stream:
                    return await stream.result()
        except TimeoutError:
            why = "" if self.connected.is_set() else f", {self._why}"
            raise self.fault(f"no answer to {method} within {timeout_s:g} s{why}", temporary=True) from None

    async def open(self, method: str, params: Json | None = None, *, acknowledged: bool = False) -> AgentStream:
        """Begin a call that streams.

        acknowledged: credit is given by the stream's acknowledge() alone, not by reading on.
        """
        if not self.connected.is_set():
            raise self.fault(self._why, temporary=True)
        self._number += 1
        stream = self._streams[self._number] = AgentStream(self, self._number, method, acknowledged=acknowledged)
        self.send_json(frames.OPEN, stream.number, {"method": method, "params": params or {}})
        return stream

    def on_note(self, callback: Callable[[Json], None]) -> Callable[[], None]:
        """Hear every note of the agent, as it comes; returns what ends that."""
        self._noted.append(callback)
        return lambda: self._noted.remove(callback)

    def snoop(self, callback: Snooper) -> Callable[[], None]:
        """See every frame; returns what ends that."""
        self._snoopers.append(callback)
        return lambda: self._snoopers.remove(callback)

    # -- for the streams

    def fault(self, got: str, *, temporary: bool = False) -> AgentFault:
        """An AgentFault of this zone."""
        return AgentFault(f"zone {self.zone}", got=got, temporary=temporary)

    @property
    def full(self) -> bool:
        """True while bytes of streams have to wait."""
        return self._outbox.full

    async def drained(self) -> None:
        """Wait until there is room, or the session is over."""
        self._drained.clear()
        await self._drained.wait()

    def send(self, kind: int, stream: int, payload: bytes = b"", fd: int = 0) -> None:
        """Queue one frame."""
        self._put(frames.frame(kind, stream, payload, fd))
        self._tell(">", kind, fd, stream, payload)

    def send_json(self, kind: int, stream: int, value: Json) -> None:
        """Queue a message. Raises AgentFault for one that is too long."""
        text = dumps(value)
        try:
            self._put(frames.message(kind, stream, text))
        except ValueError as problem:
            raise self.fault(str(problem)) from None
        self._tell(">", kind, 0, stream, text)

    def forget(self, stream: AgentStream) -> None:
        """A stream is over; what still comes for it is dropped."""
        self._streams.pop(stream.number, None)

    def broken(self, stream: AgentStream, problem: ValueError) -> None:
        """The agent broke the protocol of one stream: that stream ends, all else goes on."""
        log.warning("zone %s, %s: %s", self.zone, stream.method, problem)
        self.send(frames.CANCEL, stream.number)
        stream.fail(self.fault(f"its agent broke the protocol of {stream.method}: {problem}"))

    # -- sessions

    def _greet(self) -> None:
        self._session = os.urandom(8).hex()
        self._parser = frames.Parser(hunting=True)
        greeting = dumps({"version": VERSION, "session": self._session})
        self._outbox.greet(frames.host_greeting(greeting))
        self._tell(">", frames.HELLO, 0, 0, greeting)
        self._flush_soon()
        self._after(self._pause(self._answer_s), self._unanswered)

    def _unanswered(self) -> None:
        if self._outbox.waiting_bytes:
            self._after(self._answer_s, self._unanswered)  # not read yet: the zone boots, or hangs
        else:
            self._losses += 1
            self._greet()

    def _answered(self, payload: bytes) -> None:
        if len(payload) > frames.MAX_GREETING_BYTES:
            return
        try:
            hello = strictjson.loads(payload)
        except ValueError:
            return
        if hello.get("session") == "" and not self._outbox.waiting_bytes:
            # An agent that starts asks for a session: what it was greeted with before, its terminal may have eaten.
            self._after(self._pause(_FIRST_PAUSE_S), self._greet)
        if hello.get("session") != self._session:
            return
        if hello.get("version") != VERSION:
            self._lose(f"expected version {VERSION} of the agent's protocol, got {hello.get('version')!r:.20}")
            return
        self._after(None)
        self._begun_at = self._loop.time()
        self._number = self._credited = 0
        self.hello = hello
        self.send(frames.CREDIT, 0, frames.CREDIT_PAYLOAD.pack(frames.LINK_WINDOW_BYTES))
        self.connected.set()

    def _lose(self, reason: str) -> None:
        """The session is over by the agent's fault: a new one after a pause, longer each time."""
        log.warning("zone %s: the agent's session is lost: %s", self.zone, reason)
        stable = self.connected.is_set() and self._loop.time() - self._begun_at >= _STABLE_S
        self._losses = 0 if stable else self._losses + 1
        self._end(reason)
        self._after(self._pause(_FIRST_PAUSE_S), self._greet)

    def _end(self, reason: str) -> None:
        self._why = f"its agent's session ended: {reason}"
        self.connected.clear()
        self._after(None)
        self._session = ""
        self._parser = frames.Parser(hunting=True)
        self._outbox.greet(b"")
        self._drained.set()
        for stream in list(self._streams.values()):
            stream.fail(self.fault(self._why, temporary=True))

    def _pause(self, first_s: float) -> float:
        return min(first_s * 2.0 ** min(self._losses, 10), _LONGEST_PAUSE_S)

    def _after(self, delay_s: float | None, callback: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, callback) if delay_s is not None and callback else None

    # -- frames

    def wire_up(self) -> None:
        """The zone's driver is there."""
        if not self._closed:
            self._up = True
            self._greet()

    def wire_down(self, reason: str) -> None:
        """The zone's driver is gone."""
        self._up = False
        self._end(reason)

    def received(self, data: bytes) -> None:
        """Bytes of the zone."""
        parser = self._parser
        for kind, fd, stream, payload in parser.feed(data):
            self._tell("<", kind, fd, stream, parser.lost if kind == frames.LOST else payload)
            if self.connected.is_set():
                self._frame(kind, fd, stream, payload)
            elif kind == frames.HELLO and self._session:
                self._answered(payload)
            if self._parser is not parser:
                return  # what else came belongs to a session that is over
        self._give_link_credit()

    def _give_link_credit(self) -> None:
        """Let the zone write on. A zone that does not read has no use for it, and would make it pile up."""
        owed = self._parser.taken_bytes - self._credited
        if self.connected.is_set() and owed >= LINK_CREDIT_BYTES and not self._outbox.full:
            self._credited += owed
            self.send(frames.CREDIT, 0, frames.CREDIT_PAYLOAD.pack(owed))

    def _frame(self, kind: int, fd: int, number: int, payload: bytes) -> None:
        if kind == frames.LOST:
            self._lose(payload.decode("ascii"))
        elif kind == frames.HELLO:
            self._lose("its agent began anew")
        elif kind == frames.NOTE:
            self._note(payload)
        elif (stream := self._streams.get(number)) is not None:
            try:
                stream.arrived(kind, fd, payload)
            except ValueError as problem:
                self.broken(stream, problem)

    def _note(self, payload: bytes) -> None:
        try:
            if len(payload) > MAX_NOTE_BYTES:
                raise ValueError(f"expected a note of at most {MAX_NOTE_BYTES} bytes, got {len(payload)}")
            note = strictjson.loads(payload)
        except ValueError as problem:
            self._lose(str(problem))
            return
        if note.get("event") == "lost":
            self._lose(strictjson.words(note.get("sentence")) or "its agent lost the framing")
            return
        for callback in list(self._noted):
            try:
                callback(note)
            except Exception:
                log.exception("zone %s: a note", self.zone)

    def _tell(self, direction: str, kind: int, fd: int, stream: int, payload: bytes) -> None:
        for callback in list(self._snoopers):
            callback(direction, kind, fd, stream, payload)

    # -- bytes out

    def _put(self, data: bytes) -> None:
        if not self._session:
            return
        if self._outbox.waiting_bytes > MAX_UNREAD_BYTES:
            self._lose(f"it does not read, {self._outbox.waiting_bytes} bytes wait")
            return
        self._outbox.put(data)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """At the end of this turn of the loop: the frames of one turn ring the zone once."""
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what the transport takes."""
        self._flushing = None
        while self._up and (data := self._outbox.take()):
            taken = self._transport.write(data)
            self._outbox.wrote(taken)
            if taken < len(data):
                break
        if not self._outbox.full:
            self._drained.set()
            self._give_link_credit()


class _Wire:
    """The link as its transport's receiver."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link

    def connected(self) -> None:
        self._link.wire_up()

    def received(self, data: bytes) -> None:
        self._link.received(data)

    def writable(self) -> None:
        self._link.flush()

    def disconnected(self, reason: str) -> None:
        self._link.wire_down(reason)


async def open_link(domain: Domain, made: Callable[[AgentLink], None]) -> AgentLink | None:
    """The link to the agent of a domain of ours, begun; None for a domain without a channel.

    made: is given the link before it says its first word.
    """
    if domain.channel is None:
        return None
    link = AgentLink(domain.channel, domain.name)
    made(link)
    link.start()
    return link
