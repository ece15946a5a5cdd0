"""What a scripted zoned's zones run, say and hold: processes, logs and files."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.host.api import host_pb2 as pb
from support.fakerefusals import AgentRefused, Refused, WrongState, method

if TYPE_CHECKING:
    from support.fakezoned import FakeZoned

Program = Callable[["Run"], Awaitable[int]]


class Run:
    """One process in a zone, as a program sees it."""

    def __init__(self, stream: Any, start: Any) -> None:
        self._stream, self.start = stream, start
        self.argv = list(start.argv)
        self.input: asyncio.Queue[Any] = asyncio.Queue()
        self.resized: list[tuple[int, int]] = []
        self.signals: asyncio.Queue[int] = asyncio.Queue()

    async def out(self, data: bytes) -> None:
        await self._stream.send_message(pb.ProcessOutput(stdout=data))

    async def err(self, data: bytes) -> None:
        await self._stream.send_message(pb.ProcessOutput(stderr=data))

    async def read(self) -> bytes:
        """The next piece of stdin; b"" at its end."""
        return await self.input.get()


class Unattended:
    """Where a workload writes that nobody is attached to."""

    def __init__(self, fake: FakeZoned, name: str) -> None:
        self._fake, self._name = fake, name

    async def send_message(self, message: Any) -> None:
        source = message.WhichOneof("what")
        self._fake.logs.setdefault(self._name, []).append((time.time(), source, getattr(message, source)))


class Processes:
    """The service's methods of processes, logs and files, over a FakeZoned's script."""

    fake: FakeZoned

    @method
    async def ReadLogs(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        kept = self.fake.logs.setdefault(zone.name, [])

        def wanted(entry: tuple[float, str, bytes]) -> bool:
            when, source, _ = entry
            return (
                when >= request.since_unix_s
                and (not request.until_unix_s or when <= request.until_unix_s)
                and (source == "console") == (request.console or zone.name in self.fake.console_alone)
            )

        shown = [entry for entry in kept if wanted(entry)]
        if request.tail >= 0:
            shown = shown[len(shown) - min(request.tail, len(shown)) :]
        at = len(kept)
        for when, source, data in shown:
            await stream.send_message(pb.LogEntry(unix_s=when, stream=source, data=data))
        while request.follow:
            await self.fake.until(lambda at=at: len(kept) > at or zone.state in ("exited", "failed"))
            for when, source, data in filter(wanted, kept[at:]):
                await stream.send_message(pb.LogEntry(unix_s=when, stream=source, data=data))
            at = len(kept)
            if zone.state in ("exited", "failed"):
                return

    @method
    async def AttachZone(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.start.zone)
        awaited = zone.name in self.fake.awaited
        self.fake.awaited.discard(zone.name)
        if zone.state in ("exited", "failed") and not (awaited and zone.remove):
            raise WrongState(f"zone {zone.name}", expected="it running", got=f"it is {zone.state}")
        if zone.state in ("exited", "failed"):
            for _, source, data in self.fake.logs.get(zone.name, []):
                await stream.send_message(pb.ProcessOutput(**{source: data}))
            await stream.send_message(pb.ProcessOutput(exit=zone.exit))
            self.fake.zones.pop(zone.name)
            return None
        program = self.fake.programs.get(zone.name) or self.fake.programs.get("*")
        await self._process(stream, request.start, program, zone)
        return None

    @method
    async def ExecZone(self, stream: Any, request: Any) -> Any:
        start = request.start
        zone = self.fake.find(start.zone)
        if zone.state not in ("running", "ready"):
            raise Refused(f"zone {zone.name}", got=f"it is {zone.state}")
        if start.argv[0] not in self.fake.programs:
            code = {"not-executable": 126}.get(start.argv[0], 127)
            text = f"{start.argv[0]}: no such command"
            return pb.ProcessOutput(exit=pb.ExitStatus(code=code, reason=f"command-{code}", text=text))
        await self._process(stream, start, self.fake.programs[start.argv[0]], None)
        return None

    async def _process(self, stream: Any, start: Any, program: Any, zone: Any) -> None:
        run = Run(stream, start)
        await stream.send_message(pb.ProcessOutput(started=True))
        if start.detach:
            return

        async def receive() -> None:
            async for message in stream:
                kind = message.WhichOneof("what")
                if kind == "stdin":
                    run.input.put_nowait(message.stdin)
                elif kind == "close_stdin":
                    run.input.put_nowait(b"")
                elif kind == "resize":
                    run.resized.append((message.resize.rows, message.resize.columns))
                    run.input.put_nowait(message.resize)
                elif kind == "signal":
                    run.signals.put_nowait(message.signal)

        receiver = asyncio.ensure_future(receive())
        try:
            code = await program(run)
        finally:
            receiver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await receiver
        status = pb.ExitStatus(code=code, signal=code - 128 if code > 128 else 0, text=f"exit code {code}")
        if zone is not None:
            await self.fake.end(zone, code)
        await stream.send_message(pb.ProcessOutput(exit=status))

    @method
    async def CopyIn(self, stream: Any, request: Any) -> Any:
        self.fake.find(request.zone)
        data = request.tar
        async for part in stream:
            data += part.tar
        extract(self.fake.trees[request.zone], request.path, data)
        return pb.CopyInReply()

    @method
    async def CopyOut(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        data = archive(self.fake.trees.get(zone.name), request.path)
        if data is None:
            raise AgentRefused(f"zone {zone.name}: {request.path}", got="no such file or directory")
        for at in range(0, len(data), 1000):
            await stream.send_message(pb.CopyOutReply(tar=data[at : at + 1000]))

    @method
    async def Sysctl(self, stream: Any, request: Any) -> Any:
        zone = self.fake.find(request.zone)
        settings = self.fake.settings.setdefault(zone.name, {})
        if request.key not in settings:
            raise AgentRefused(f"zone {zone.name}", got=f"sysctl {request.key}: No such file or directory")
        if request.HasField("value"):
            settings[request.key] = request.value
        return pb.SysctlReply(value=settings[request.key])

    @method
    async def ListProcesses(self, stream: Any, request: Any) -> Any:
        return pb.ListProcessesReply(processes=self.fake.processes.get(self.fake.find(request.zone).name, []))


def archive(root: Path | None, path: str) -> bytes | None:
    """A path below a root as zoned gives it: its own name first, or `.` for what lies in a directory."""
    if root is None:
        return None
    place = root / path.lstrip("/")
    contents = path.endswith("/.")
    if not os.path.lexists(place) or (contents and not place.is_dir()):
        return None
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(place, arcname="." if contents else place.name)
    return out.getvalue()


def extract(root: Path, path: str, data: bytes) -> None:
    """Unpack an archive below a root. Raises AgentRefused where there is no such directory."""
    place = root / path.lstrip("/")
    if not place.is_dir():
        raise AgentRefused(f"zone: {path}", got="no such directory")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(place)
