"""What runs in a simulated domain: an init that reports in xenstore, and an agent with containers, in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from runtime.host.agentlink.model import AgentFault
from runtime.init.channel import frames

if TYPE_CHECKING:
    from support.daemonworld import Host

Json = dict[str, Any]
POWEROFF, CRASH = 0, 3


class Container:
    """One container: its output by descriptor, kept until it is acknowledged."""

    def __init__(self) -> None:
        self.kept = {1: b"", 2: b""}
        self.start = {1: 0, 2: 0}  # offset of the first byte kept
        self.state, self.exit, self.health = "created", None, ""
        self.readers: list[FakeStream] = []


class Guest:
    """A zone from within. Told by the test what happens in it."""

    host: Host
    domid: int
    uuid: str

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {"main": Container()}
        self.links: list[FakeLink] = []
        self.calls: list[tuple[str, Json]] = []
        self.stops_when_asked = True
        self.silent = False  # never reports anything by itself
        self.ended = False
        self.answers: dict[str, Callable[[Json], Json]] = {}
        self.boot: Json = {"init": 0.1, "workload": 0.2}  # when its init did what
        self.outcome = ""  # of a boot that failed, which its agent's channel tells

    # -- what the test says happens

    def started(self) -> None:
        if not self.silent:
            self.containers["main"].state = "running"
            self.report(phase="workload", timings="init=0.100 workload=0.200")

    def report(self, **nodes: str) -> None:
        for key, value in nodes.items():
            self.host.xenstored.put(f"/local/domain/{self.domid}/zone/state/{key}", value.encode())

    def write(self, data: bytes, fd: int = 1, container: str = "main") -> None:
        """Its workload prints."""
        box = self.containers[container]
        box.kept[fd] += data
        for stream in list(box.readers):
            stream.send_log(box, fd)

    def note(self, event: str, **fields: Any) -> None:
        for link in self.links:
            link.note({"event": event, **fields})

    def exit(self, told: str = "code 0", *, reason: int = POWEROFF, tell: bool = True) -> None:
        """Its workload ends, and with it the zone."""
        if self.ended:
            return
        self.ended = True
        kind, _, number = told.partition(" ")
        if tell:
            self.report(phase="exited", exit=told)
            if kind in ("code", "signal"):
                self.note("exit", container="main", **{kind: int(number)})
                for link in self.links:
                    link.loop.call_soon_threadsafe(self.end_container, "main", {kind: int(number)})
        self.die(reason)

    def die(self, reason: int = POWEROFF) -> None:
        self.ended = True
        with self.host.xen.lock:
            if self.domid in self.host.xen.domains:
                self.host.xen.domains[self.domid].shutdown = reason
        self.host.xenstored.fire("@releaseDomain")

    def asked_to_stop(self, signal: int) -> None:
        if self.stops_when_asked:
            self.exit(f"signal {signal}")

    # -- the agent's methods

    def call(self, method: str, params: Json) -> Json:
        self.calls.append((method, params))
        if method in self.answers:
            return self.answers[method](params)
        if method in ("start", "stop", "delete") and params["id"] not in self.containers:
            raise AgentFault("zone", got="no such container")
        if method == "list":
            return {"containers": [{"id": name, "state": box.state} for name, box in self.containers.items()]}
        if method == "create":
            self.containers[params["id"]] = Container()
        elif method == "start":
            self.containers[params["id"]].state = "running"
        elif method == "stop":
            self.end_container(params["id"], {"signal": 15})
            return {"exit": self.containers[params["id"]].exit}
        elif method == "delete":
            del self.containers[params["id"]]
        elif method == "kill" and params["id"] == "main" and params["signal"] == 9:
            self.exit("signal 9")
        return {}

    def end_container(self, name: str, exit: Json) -> None:
        box = self.containers[name]
        box.state, box.exit = "stopped", exit
        for stream in list(box.readers):
            stream.finish_log(box)


class FakeStream:
    """One open call."""

    def __init__(self, link: FakeLink, method: str, params: Json) -> None:
        self.link, self.method, self.params = link, method, params
        self.arrivals: deque[tuple[int, int, Any]] = deque()
        self.news = asyncio.Event()
        self.outcome: Json | AgentFault | None = None
        self.written: list[bytes] = []
        self.events: list[Json] = []
        self.ended_input = self.cancelled = False
        self.sent: dict[int, int] = {}
        self.box: Container | None = None

    # -- the guest's side

    def put(self, kind: int, fd: int, data: Any) -> None:
        self.arrivals.append((kind, fd, data))
        self.news.set()

    def conclude(self, outcome: Json | AgentFault) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.news.set()

    def begin_log(self, box: Container) -> None:
        self.box = box
        for fd in (1, 2):
            asked = self.params["from"].get(str(fd), 0)
            assert asked <= box.start[fd] + len(box.kept[fd]), "asked for what was never printed"
            if asked < box.start[fd]:
                self.put(frames.EVENT, 0, {"gap": box.start[fd] - asked, "fd": fd})
            self.release(box, fd, asked)
            self.sent[fd] = max(asked, box.start[fd])
        box.readers.append(self)
        for fd in (1, 2):
            self.send_log(box, fd)
        if box.state == "stopped":
            self.finish_log(box)

    def send_log(self, box: Container, fd: int) -> None:
        data = box.kept[fd][self.sent[fd] - box.start[fd] :]
        if data:
            self.sent[fd] += len(data)
            self.put(frames.DATA, fd, data)

    def finish_log(self, box: Container) -> None:
        if not any(box.kept.values()):
            self.conclude({})

    @staticmethod
    def release(box: Container, fd: int, offset: int) -> None:
        if offset > box.start[fd]:
            box.kept[fd] = box.kept[fd][offset - box.start[fd] :]
            box.start[fd] = offset

    # -- the host's side

    async def __aiter__(self) -> AsyncIterator[tuple[int, int, Any]]:
        while True:
            while self.arrivals:
                yield self.arrivals.popleft()
            if isinstance(self.outcome, AgentFault):
                raise self.outcome
            if self.outcome is not None:
                return
            self.news.clear()
            await self.news.wait()

    async def write(self, fd: int, data: bytes) -> None:
        self.link.host.alive()
        self.written.append(data)

    async def eof(self, fd: int) -> None:
        self.ended_input = True

    async def event(self, event: Json) -> None:
        self.events.append(event)

    def acknowledge(self, fd: int, count: int) -> None:
        self.link.host.alive()
        if self.box is not None:
            self.release(self.box, fd, self.box.start[fd] + count)
            if self.box.state == "stopped":
                self.finish_log(self.box)

    async def result(self, timeout_s: float | None = None) -> Json:
        while self.outcome is None:
            self.news.clear()
            await self.news.wait()
        if isinstance(self.outcome, AgentFault):
            raise self.outcome
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True
        if self.box is not None and self in self.box.readers:
            self.box.readers.remove(self)
        self.conclude(AgentFault("zone", got="cancelled"))


class FakeLink:
    """The channel to a guest's agent; it is up unless the test takes it down."""

    def __init__(self, guest: Guest, host: Host) -> None:
        self.guest, self.host = guest, host
        self.loop = asyncio.get_running_loop()
        self.connected = asyncio.Event()
        self.hello: Json = {
            "boot": guest.boot,
            "containers": [
                {"id": name, "state": box.state, "exit": box.exit} | ({"health": box.health} if box.health else {})
                for name, box in guest.containers.items()
            ],
        } | ({"outcome": guest.outcome, "containers": []} if guest.outcome else {})
        self.callbacks: list[Callable[[Json], None]] = []
        self.snoopers: list[Callable[..., None]] = []
        self.streams: list[FakeStream] = []
        self.closed = False
        guest.links.append(self)
        self.connected.set()

    def note(self, note: Json) -> None:
        """From any thread."""
        if not self.closed:
            self.loop.call_soon_threadsafe(lambda: [callback(note) for callback in self.callbacks])

    def drop(self) -> None:
        """The session is lost."""
        self.connected.clear()
        for stream in self.streams:
            if stream.box is not None and stream in stream.box.readers:
                stream.box.readers.remove(stream)
            stream.conclude(AgentFault("zone", got="the session was lost"))

    async def call(self, method: str, params: Json | None = None, timeout_s: float = 10.0) -> Json:
        self.host.alive()
        return self.guest.call(method, params or {})

    async def open(self, method: str, params: Json | None = None, *, acknowledged: bool = False) -> FakeStream:
        self.host.alive()
        stream = FakeStream(self, method, params or {})
        self.streams.append(stream)
        if method == "logs":
            name = stream.params["container"]
            if name not in self.guest.containers:
                raise AgentFault("zone", got="no such container")
            stream.begin_log(self.guest.containers[name])
        return stream

    def on_note(self, callback: Callable[[Json], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def snoop(self, callback: Callable[..., None]) -> Callable[[], None]:
        self.snoopers.append(callback)
        return lambda: self.snoopers.remove(callback)

    def frame(self, direction: str, payload: bytes) -> None:
        """Something passes."""
        for callback in list(self.snoopers):
            callback(direction, 0, 0, 0, payload)

    async def close(self) -> None:
        self.closed = True
        self.drop()
        if self in self.guest.links:
            self.guest.links.remove(self)


def silent_guest() -> Guest:
    """One whose workload never runs."""
    guest = Guest()
    guest.silent = True
    return guest
