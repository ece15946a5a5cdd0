"""Sessions with what runs in a zone: attach, exec, a dialled connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from runtime.errors import RuntimeFault
from runtime.host.agentlink.model import AgentFault, Stream
from runtime.host.daemon import exits, figures, logreader
from runtime.host.daemon.agent import MAIN, AgentLink
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import NoAgent, WrongState
from runtime.host.daemon.model import ExitStatus, LogEntry, Metric, Output, ProcessStart, TerminalSize
from runtime.host.daemon.signals import Changes, first, until
from runtime.host.daemon.zone import Run, Zone
from runtime.init.channel import frames

STDIN, STDOUT, STDERR = 0, 1, 2
COPY_BYTES = 32 << 10
CALL_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 30.0
MEND_TIMEOUT_S = 10.0
_USED = ("user_s", "system_s", "max_rss_kib")
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Session:
    """A process's input and output. `async with` closes it."""

    async def write_stdin(self, data: bytes) -> None:
        """Waits while the process does not read."""
        raise NotImplementedError

    async def close_stdin(self) -> None:
        """End of file."""
        raise NotImplementedError

    async def resize(self, size: TerminalSize) -> None:
        """The terminal has another size."""
        raise NotImplementedError

    async def signal(self, number: int) -> None:
        """Signal the process."""
        raise NotImplementedError

    def outputs(self) -> AsyncIterator[Output]:
        """What it says, until its exit, which is the last."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave: an exec'd process ends, a workload goes on."""
        raise NotImplementedError

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def link_of(zone: Zone) -> AgentLink:
    """The channel to a running zone's agent; one that is being mended has some seconds. Raises WrongState, NoAgent."""
    run = zone.run
    if zone.state.up and run is not None and run.link is not None and not run.link.connected.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEND_TIMEOUT_S):
                await first(run.link.connected.wait(), _end_of(zone, run))
    if not zone.state.up or zone.run is None:
        raise WrongState(f"zone {zone.name}", expected="it running", got=f"it is {zone.state.value}")
    link = zone.run.link
    if link is None or not link.connected.is_set():
        hint = "its init is an old one, or it is still starting" if link is None else "its channel is being mended"
        raise NoAgent(f"zone {zone.name}", expected="an agent that answers", got="none", hint=hint, temporary=True)
    return link


async def _end_of(zone: Zone, run: Run) -> None:
    while zone.state.up and zone.run is run:
        await zone.changes.after(zone.changes.count)


async def call(zone: Zone, method: str, params: dict[str, Any], timeout_s: float = CALL_TIMEOUT_S) -> dict[str, Any]:
    """One question to a zone's agent."""
    return await (await link_of(zone)).call(method, params, timeout_s)


class StreamSession(Session):
    """An exec or a dialled connection: a stream of its own.

    detached:  leaving does not end it; what it says is thrown away then.
    """

    def __init__(
        self,
        stream: Stream,
        ended: Callable[[ExitStatus, dict[str, str]], Awaitable[None]] | None = None,
        *,
        detached: Callable[[Coroutine[Any, Any, None]], None] | None = None,
    ) -> None:
        self._stream, self._ended, self._detached, self._over = stream, ended, detached, False

    async def write_stdin(self, data: bytes) -> None:
        await self._stream.write(STDIN, data)

    async def close_stdin(self) -> None:
        await self._stream.eof(STDIN)

    async def resize(self, size: TerminalSize) -> None:
        await self._stream.event({"resize": [size.rows, size.columns]})

    async def signal(self, number: int) -> None:
        await self._stream.event({"signal": number})

    async def outputs(self) -> AsyncIterator[Output]:
        try:
            async for kind, fd, data in self._stream:
                if kind == frames.DATA and isinstance(data, bytes):
                    yield Output(_NAMES.get(fd, "stdout"), data)  # credit is given when the reader comes for more
                elif kind == frames.EVENT and isinstance(data, dict) and "started" in data:
                    yield Output("started")
            result = await self._stream.result()
        except RuntimeFault as fault:
            # A command that is not there, or cannot be run, has an exit code, as in a shell.
            if not str(reason := getattr(fault, "reason", "")).startswith("command-"):
                raise
            result = {"failed": reason, "sentence": fault.got}
        self._over = True
        exit = exits.from_agent(result.get("exit", result)) or ExitStatus()
        if self._ended is not None:
            await self._ended(exit, _used(result.get("rusage")))
        yield Output("exit", exit=exit)

    async def close(self) -> None:
        if self._over:
            return
        if self._detached is not None:
            self._detached(self._throw_away())
        else:
            self._over = True
            self._stream.cancel()

    async def _throw_away(self) -> None:
        with contextlib.suppress(RuntimeFault):
            async for _ in self.outputs():
                pass


def _used(rusage: object) -> dict[str, str]:
    """What a process and its children have used, by the agent's names."""
    found = {metric.name: metric.value for metric in figures.metrics_of(rusage)} if isinstance(rusage, dict) else {}
    return {name: f"{found[name]:.15g}" for name in _USED if name in found}


class AttachSession(Session):
    """A workload's output as its log has it, and its input, which is opened when it is first used."""

    def __init__(
        self,
        zone: Zone,
        container: str,
        entries: AsyncIterator[LogEntry],
        exit: Callable[[], ExitStatus | None],
        left: Callable[[], None] = lambda: None,
        running: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._zone, self._container, self._entries, self._exit, self._left = zone, container, entries, exit, left
        self._running = running  # waits for a workload that is still to start: its input is not to be lost
        self._stdin: Stream | None = None

    async def _input(self) -> Stream:
        if self._stdin is None:
            if self._running is not None:
                await self._running()
            self._stdin = await (await link_of(self._zone)).open("stdin", {"id": self._container})
        return self._stdin

    async def write_stdin(self, data: bytes) -> None:
        await (await self._input()).write(STDIN, data)

    async def close_stdin(self) -> None:
        await (await self._input()).eof(STDIN)

    async def resize(self, size: TerminalSize) -> None:
        await (await self._input()).event({"resize": [size.rows, size.columns]})

    async def signal(self, number: int) -> None:
        await call(self._zone, "kill", {"id": self._container, "signal": number, "all": False})

    async def outputs(self) -> AsyncIterator[Output]:
        yield Output("started")
        async for entry in self._entries:
            yield Output(entry.stream, entry.data)
        yield Output("exit", exit=self._exit() or ExitStatus())

    async def close(self) -> None:
        if self._stdin is not None:
            self._stdin.cancel()
        with contextlib.suppress(RuntimeError):
            await self._entries.aclose()  # type: ignore[attr-defined]
        self._left()
        self._left = lambda: None


async def attach_main(core: Core, zone: Zone, start: ProcessStart) -> Session:
    """Join the zone's own workload, in its present run; or in its last, where the zone is kept for that."""
    if not zone.state.live and not zone.awaited:
        raise WrongState(f"zone {zone.name}", expected="it running", got=f"it is {zone.state.value}")
    run = zone.run or (None if zone.state.live else zone.last)
    writer = core.log_of(zone)

    def over() -> bool:
        # Its log is whole once the run has been let go of.
        return not zone.state.live or (run is not None and zone.run is not run)

    entries = logreader.read_log(
        writer.directory,
        behind=None if start.replay else writer.end,  # now: what it is told may be answered before anybody reads
        changes=Joined(zone.changes, writer.changes),
        ended=over,
        run=run.uuid if run else zone.uuid,
    )

    def left() -> None:
        zone.attached -= 1
        zone.changes.tell()

    zone.awaited = False
    zone.attached += 1

    def settled() -> bool:
        return not zone.state.live or (zone.run is not None and zone.run.ready)

    async def running() -> None:
        await until(zone.changes, settled, core.clock)
        if zone.run is not None and zone.run.link is not None:
            with contextlib.suppress(TimeoutError):  # to open the stream then says what is wrong
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await zone.run.link.connected.wait()

    session = AttachSession(zone, MAIN, entries, lambda: zone.exit, left, running)
    if start.size is not None and zone.bundle.process.tty:
        try:
            with contextlib.suppress(RuntimeFault):  # its terminal may not be there yet
                await session.resize(start.size)
        except BaseException:
            await session.close()
            raise
    return session


class Joined:
    """Two kinds of changes as one."""

    def __init__(self, one: Changes, other: Changes) -> None:
        self._one, self._other = one, other

    @property
    def count(self) -> int:
        """Of both."""
        return self._one.count + self._other.count

    async def after(self, count: int) -> None:
        """Return once the count is another one."""
        while self.count == count:
            await first(self._one.after(self._one.count), self._other.after(self._other.count))


async def exec_process(core: Core, zone: Zone, container: str, start: ProcessStart) -> Session:
    """One more process in a container, or (\"\") in the zone itself."""
    process: dict[str, Any] = {"argv": list(start.argv), "tty": start.tty}
    if start.env:
        # The agent takes what is given for all there is: what was not named stays as the workload has it.
        own = zone.bundle.process.env if container == MAIN else ()
        found = {text.partition("=")[0]: text for text in own}
        if start.user:
            found.pop("HOME", None)  # the agent knows that of another user
        process["env"] = list((found | {text.partition("=")[0]: text for text in start.env}).values())
    if start.cwd:
        process["cwd"] = start.cwd
    if start.user:
        process["user"] = start.user
    if start.size is not None:
        process["size"] = [start.size.rows, start.size.columns]
    params = {"process": process} | ({"container": container} if container else {})
    stream = await (await link_of(zone)).open("exec", params)
    await core.tell("exec.start", zone, command=" ".join(start.argv)[:200])

    async def ended(exit: ExitStatus, used: dict[str, str]) -> None:
        await core.tell("exec.exit", zone, code=str(exit.code), **used)

    return StreamSession(stream, ended, detached=core.background if start.detach else None)


async def dial(zone: Zone, address: str, port: int) -> Session:
    """A TCP connection made in the zone."""
    return StreamSession(await (await link_of(zone)).open("dial", {"address": address, "port": port}))


async def watch_metrics(zone: Zone, interval_s: float) -> AsyncIterator[list[Metric]]:
    """What a zone measures, as it tells it by itself."""
    stream = await (await link_of(zone)).open("metrics", {"interval_s": interval_s})
    lines = figures.Lines()
    try:
        async for kind, _, data in stream:
            if kind == frames.DATA and isinstance(data, bytes):
                for found in lines.feed(data):
                    yield found
        await stream.result()
        # Of an agent that is older than this: it has told them once.
        raise NoAgent(
            f"zone {zone.name}", expected="an agent that tells its figures by itself", got="one that does not"
        )
    except ValueError as problem:
        raise AgentFault(f"zone {zone.name}, metrics", got=str(problem)) from problem
    finally:
        stream.cancel()


async def copy_in(zone: Zone, container: str, path: str, chunks: AsyncIterator[bytes]) -> int:
    """Unpack a tar archive in a container; how many extended attributes its file systems did not take."""
    stream = await (await link_of(zone)).open("copy_in", {"container": container, "path": path})
    result = asyncio.ensure_future(stream.result())
    try:
        async for chunk in chunks:
            for at in range(0, len(chunk), COPY_BYTES):
                if result.done():
                    break  # it has failed: there is no use for the rest
                await stream.write(STDIN, chunk[at : at + COPY_BYTES])
            if result.done():
                break
        else:
            await stream.eof(STDIN)
        left_out = (await result).get("xattrs_left_out")
    except BaseException:
        result.cancel()
        stream.cancel()
        raise
    return left_out if isinstance(left_out, int) and 0 < left_out < 1 << 63 else 0


async def copy_out(zone: Zone, container: str, path: str) -> AsyncIterator[bytes]:
    """A path of a container as a tar archive."""
    stream = await (await link_of(zone)).open("copy_out", {"container": container, "path": path})
    over = False
    try:
        async for kind, _, data in stream:
            if kind == frames.DATA and isinstance(data, bytes):
                yield data
        await stream.result()
        over = True
    finally:
        if not over:
            stream.cancel()
