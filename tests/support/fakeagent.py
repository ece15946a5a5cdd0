"""A zone's agent for tests: the guest's end of the channel, with the real protocol code, over a socket pair.

    transport, agent = fakeagent.pair()
    link = AgentLink(transport, "web"); link.start()

Answers ping, info, list, logs (of `agent.logs`), exec (echoes its input and ends with it, as argv ["code", "3"] or
["signal", "9"] says; knows ["head", "-c", N, ...], and ["sh", ...] as what swallows its input) and sleep (never); sends
notes when told to (`agent.note`, `agent.exit`). Keeps the link's credit and the streams', as a real one must.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from runtime.boot.channel import Receiver
from runtime.host.agentlink.link import AgentLink
from runtime.init import jsonread
from runtime.init.channel import frames
from runtime.init.channel.credit import Credits
from runtime.init.channel.jsonwrite import dumps
from runtime.init.channel.outbox import Outbox

Json = dict[str, Any]


class DescriptorTransport:
    """Implements agentlink.model.Transport over a socket or a terminal; read and written in the loop."""

    def __init__(self, descriptor: int, *, most: int = 2048) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor, self._most = descriptor, most
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._loop.add_reader(self.descriptor, self._readable)
        receiver.connected()

    def write(self, data: bytes) -> int:
        try:
            taken = os.write(self.descriptor, data[:1024]) if data else 0
        except BlockingIOError:
            taken = 0
        except OSError:
            return 0
        if taken < len(data):
            self._loop.add_writer(self.descriptor, self._writable)
        return taken

    def hang_up(self, reason: str = "the zone closed it") -> None:
        """As if the guest's driver had closed."""
        assert self._receiver is not None
        self._loop.remove_reader(self.descriptor)
        self._receiver.disconnected(reason)

    def close(self) -> None:
        """From any thread, as a ring's."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            self._loop.call_soon_threadsafe(self._close, descriptor)

    def _close(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        os.close(descriptor)

    def _readable(self) -> None:
        assert self._receiver is not None
        try:
            data = os.read(self.descriptor, self._most)
        except OSError:
            data = b""
        if data:
            self._receiver.received(data)
        else:
            self.hang_up()

    def _writable(self) -> None:
        assert self._receiver is not None
        self._loop.remove_writer(self.descriptor)
        self._receiver.writable()


class _Stream:
    def __init__(self, agent: FakeAgent, number: int, method: str, params: Json) -> None:
        self.agent, self.number, self.method, self.params = agent, number, method, params
        self.credits = Credits()
        self.waiting = {fd: bytearray() for fd in frames.FDS}
        self.result: Json | None = None
        self.events: list[Json] = []
        self.done = False

    def pump(self) -> None:
        """Send what credit allows, and the result behind the last byte."""
        if self.done:
            return
        for fd, waiting in self.waiting.items():
            count = min(len(waiting), self.credits.may_send(fd))
            if count:
                self.credits.sent(fd, count)
                self.agent.send(frames.data(self.number, fd, bytes(waiting[:count])))
                del waiting[:count]
        if self.result is not None and not any(self.waiting.values()):
            self.done = True
            self.agent.send(frames.message(frames.RESULT, self.number, dumps(self.result)))
            self.agent.streams.pop(self.number, None)

    def consumed(self, fd: int, count: int) -> None:
        if give := self.credits.consumed(fd, count):
            self.agent.send(frames.credit(self.number, fd, give))

    def ok(self, **fields: Any) -> None:
        self.result = {"ok": fields}
        self.pump()


class FakeAgent:
    """The guest's end. `greets`: answers greetings; set it to False for a zone that does not."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self.parser, self.outbox = frames.Parser(), Outbox(link_credit=True)
        self.greets = True
        self.sessions: list[str] = []
        self.streams: dict[int, _Stream] = {}
        self.opened: list[tuple[str, Json]] = []
        self.cancelled: list[int] = []
        self.containers: list[Json] = [{"id": "main", "state": "running", "tty": False, "pid": 83}]
        self.logs: dict[int, bytes] = {1: b"", 2: b""}
        self.acknowledged = {1: 0, 2: 0}
        self.ended = True
        self.notes = 0
        self.methods: dict[str, Callable[[_Stream], None]] = {
            "ping": lambda stream: stream.ok(),
            "info": lambda stream: stream.ok(kernel="6.1", agent="fake"),
            "list": lambda stream: stream.ok(containers=self.containers),
            "logs": self._logs,
            "exec": self._exec,
            "sleep": lambda stream: None,
        }
        self._loop.add_reader(descriptor, self._readable)

    def send(self, data: bytes) -> None:
        """Queue frames."""
        self.outbox.put(data)
        self.flush()

    def raw(self, data: bytes) -> None:
        """Write bytes as they are, past credit and framing."""
        os.set_blocking(self.descriptor, True)
        while data:
            data = data[os.write(self.descriptor, data) :]
        os.set_blocking(self.descriptor, False)

    def note(self, event: str, **fields: Any) -> None:
        self.notes += 1
        self.send(frames.message(frames.NOTE, 0, dumps({"seq": self.notes, "event": event, **fields})))

    def exit(self, container: str = "main", **how: Any) -> None:
        """The container ends: {"code": n} or {"signal": n}."""
        self.containers = [
            {**known, "state": "stopped", "exit": how} if known["id"] == container else known
            for known in self.containers
        ]
        self.note("exit", container=container, **how)

    def close(self) -> None:
        if self.descriptor >= 0:
            self._loop.remove_reader(self.descriptor)
            self._loop.remove_writer(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1

    def flush(self) -> None:
        if self.descriptor < 0:
            return
        try:
            while data := self.outbox.take():
                self.outbox.wrote(os.write(self.descriptor, data))
        except BlockingIOError:
            self._loop.add_writer(self.descriptor, self._writable)
        except OSError:
            return

    def _writable(self) -> None:
        self._loop.remove_writer(self.descriptor)
        self.flush()

    def _readable(self) -> None:
        try:
            data = os.read(self.descriptor, 1 << 16)
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self.descriptor)
            return
        for kind, fd, number, payload in self.parser.feed(data):
            if kind == frames.HELLO:
                self._hello(jsonread.parse(payload))
            elif self.sessions:
                self._frame(kind, fd, number, payload)

    def _hello(self, hello: Any) -> None:
        assert hello["version"] == 1
        self.streams.clear()
        self.sessions.append(hello["session"])
        if self.greets:
            answer = {
                "version": 1,
                "session": hello["session"],
                "boot": {"workload": 4.2},
                "containers": self.containers,
            }
            self.outbox.greet(frames.guest_greeting(dumps(answer)))
            self.flush()

    def _frame(self, kind: int, fd: int, number: int, payload: bytes) -> None:
        stream = self.streams.get(number)
        if kind == frames.CREDIT and not number:
            self.outbox.credit(frames.credit_of(payload))
            self.flush()
        elif kind == frames.OPEN:
            self._open(number, jsonread.parse(payload))
        elif stream is None:
            return
        elif kind == frames.CREDIT:
            stream.credits.given(fd, frames.credit_of(payload))
            if stream.method == "logs":
                self.acknowledged[fd] += frames.credit_of(payload)
            stream.pump()
        elif kind == frames.CANCEL:
            self.cancelled.append(number)
            del self.streams[number]
        elif kind == frames.EVENT:
            stream.events.append(jsonread.parse(payload))  # type: ignore[arg-type]
        elif kind in (frames.DATA, frames.EOF):
            self._input(stream, kind, fd, payload)

    def _open(self, number: int, request: Any) -> None:
        method, params = request["method"], request["params"]
        self.opened.append((method, params))
        stream = self.streams[number] = _Stream(self, number, method, params)
        handler = self.methods.get(method)
        if handler is None:
            stream.result = {"error": {"reason": "unknown-method", "sentence": f"the agent has no method {method}"}}
            stream.pump()
        else:
            handler(stream)

    def _logs(self, stream: _Stream) -> None:
        wanted = stream.params.get("from", {})
        for fd in (1, 2):
            stream.waiting[fd] += self.logs[fd][int(wanted.get(str(fd), 0)) :]
        if self.ended:
            stream.ok()
        else:
            stream.pump()

    def _exec(self, stream: _Stream) -> None:
        self.send(frames.message(frames.EVENT, stream.number, dumps({"started": 7})))
        argv = stream.params["process"]["argv"]
        if argv[0] == "head":
            stream.waiting[1] += bytes(int(argv[2]))
            stream.pump()

    def _input(self, stream: _Stream, kind: int, fd: int, payload: bytes) -> None:
        """exec: what comes on 0 goes out on 1, and with its end the process ends as its argv says."""
        argv = stream.params["process"]["argv"]
        if kind == frames.DATA:
            stream.credits.received(fd, len(payload))
            if argv[0] != "sh":
                stream.waiting[1] += payload
            stream.consumed(fd, len(payload))
            stream.pump()
        else:
            self.send(frames.frame(frames.EOF, stream.number, fd=2))
            stream.ok(exit={argv[0]: int(argv[1])} if argv[0] in ("code", "signal") and argv[1:] else {"code": 0})


def pair() -> tuple[DescriptorTransport, FakeAgent]:
    """Both ends, in the running loop."""
    here, there = socket.socketpair()
    return DescriptorTransport(here.detach()), FakeAgent(there.detach())


Test = Callable[..., Awaitable[None]]


def in_loop(test: Test) -> Callable[..., None]:
    """Run a test in a loop of its own; nothing in it takes long."""

    @functools.wraps(test)
    def run(*arguments: Any, **keys: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **keys), 120))

    return run


@contextlib.asynccontextmanager
async def linked(*, answer_s: float = 5.0, greets: bool = True) -> AsyncIterator[tuple[AgentLink, FakeAgent]]:
    transport, agent = pair()
    agent.greets = greets
    link = AgentLink(transport, "web", answer_s=answer_s)
    link.start()
    try:
        if greets:
            await link.connected.wait()
        yield link, agent
    finally:
        await link.close()
        agent.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.002)
