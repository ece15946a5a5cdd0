"""zoned's services in a thread, over a manager that answers by name and notes what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import DigestMismatch
from pipeline.oci import Descriptor, Digest
from runtime.host.daemon import model
from runtime.host.daemon.errors import NotEnough, UnknownZone
from runtime.host.daemon.manager import Manager, Session
from runtime.host.serve.host import HostService
from runtime.host.serve.server import HostServer
from support.sessions import QueuedSession

WEB = model.ZoneInfo(
    id="11111111-2222-3333-4444-555555555555",
    name="web",
    state=model.State.READY,
    domid=3,
    addresses=("10.75.0.2", "fd00::2"),
    ports=(model.PortRule(80, port=40001, host_address="127.0.0.1", host_port=8080),),
    exit=model.ExitStatus(code=137, signal=9, oom=True, text="killed by SIGKILL (out of memory)"),
    restart=model.RestartPolicy("on-failure", 3),
    labels={"a": "b"},
    timings={"build.end": 0.5},
    console_tail=("one", "two"),
)


class ScriptedSession(QueuedSession):
    """An exec: `exit` on stdin ends it, all else is echoed; `hang` says nothing for ever."""

    def __init__(self) -> None:
        super().__init__(2)
        self.inputs: list[Any] = []

    async def write_stdin(self, data: bytes) -> None:
        if data == b"exit":
            await self._outputs.put(model.Output("exit", exit=model.ExitStatus(code=3)))
        elif data != b"hang":
            await self._outputs.put(model.Output("stdout", data))

    async def close_stdin(self) -> None:
        self.inputs.append("closed")
        await self._outputs.put(model.Output("exit", exit=model.ExitStatus()))

    async def resize(self, size: model.TerminalSize) -> None:
        self.inputs.append(size)

    async def signal(self, number: int) -> None:
        self.inputs.append(number)

    async def outputs(self) -> AsyncIterator[model.Output]:
        yield model.Output("started")
        async for output in super().outputs():
            yield output


class ScriptedManager(Manager):
    """Answers what the tests ask; notes what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.started, self.cancelled = threading.Event(), threading.Event()
        self.session = ScriptedSession()
        self.produced = 0

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self.started.set()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def boot(self, request: model.BootRequest, emit: model.Emit = lambda _: None) -> model.ZoneInfo:
        self.seen.append(request)
        emit(model.BootProgress("queued"))
        emit(model.BootProgress("build", "a plan", WEB))
        if request.bundle.name == "big":
            raise NotEnough("zone big", expected="9 MiB free", got="1")
        if request.bundle.name == "slow":
            with self._watched():
                await asyncio.Event().wait()
        return WEB

    def list_zones(self, *, all: bool = True) -> list[model.ZoneInfo]:
        return [WEB] if all else []

    async def get(self, ref: str, *, fresh: bool = False) -> model.ZoneInfo:
        raise UnknownZone(f"zone {ref}", got="no such zone on this host", hint="did you mean web?")

    async def kill(self, ref: str, signal: int = 9) -> model.ZoneInfo:
        raise ZeroDivisionError("an accident")

    async def stop(self, ref: str, timeout_s: float | None = None) -> model.ZoneInfo:
        self.seen.append(timeout_s)
        return WEB

    async def sysctl(self, ref: str, key: str, value: str | None = None) -> str:
        self.seen.append((ref, key, value))
        return repr(value)

    async def wait(self, ref: str, until: str = "exited", timeout_s: float = 0.0) -> model.ZoneInfo:
        self.seen.append(until)
        with self._watched():
            await asyncio.Event().wait()
        return WEB

    async def event_token(self) -> str:
        return "db-7"

    async def events(self, **asked: Any) -> AsyncIterator[model.Event]:
        self.seen.append(asked)
        yield model.Event("db-8", 0.0, "zone.ready", "id", "web", {})

    async def update(self, ref: str, change: model.Update) -> model.ZoneInfo:
        self.seen.append(change)
        return WEB

    async def pause(self, ref: str, *, paused: bool = True) -> model.ZoneInfo:
        self.seen.append((ref, paused))
        return dataclasses.replace(WEB, paused=paused, limits={"pids.max": "64"})

    async def logs(self, ref: str, **options: Any) -> AsyncIterator[model.LogEntry]:  # type: ignore[override]
        self.seen.append(options)
        with self._watched():
            while True:
                self.produced += 1
                yield model.LogEntry(1.5, "stdout", bytes(1 << 16))

    async def exec(self, start: model.ProcessStart) -> Session:
        self.seen.append(start)
        return self.session

    async def put_blob(self, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
        data = b"".join([chunk async for chunk in chunks])
        if Digest.of(data) != blob.digest:
            raise DigestMismatch("blob", expected=blob.digest.short, got=Digest.of(data).short)
        self.seen.append(data)

    async def find_blobs(self, blobs: Any) -> list[Digest]:
        return [blob.digest for blob in blobs if blob.size_bytes > 5]

    async def copy_out(self, ref: str, path: str, *, workload: str = "") -> AsyncIterator[bytes]:  # type: ignore[override]
        yield b"x" * 1_000_000
        yield b"y"


@contextlib.contextmanager
def zoned(manager: Manager, path: Path, *tls: Path) -> Iterator[Callable[[str], Any]]:
    """A server in a thread; yields what runs one of its methods there."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    server = None

    async def serve() -> None:
        nonlocal server
        server = HostServer([HostService(manager)], path=path, tls=tls)
        await server.start()
        ready.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(120)
    try:
        yield lambda method: asyncio.run_coroutine_threadsafe(getattr(server, method)(), loop).result(120)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(120)
        assert not thread.is_alive(), "the server does not end"
        loop.close()
