"""What goes both ways: a zone's console, commands in it, a workload's streams, sockets dialled in it.

A session's output is read only as fast as the client takes it, and the client's input only as fast as the session does.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

from runtime.host.api import common_pb2
from runtime.host.api import control_pb2 as pb
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.manager import Session
from runtime.host.daemon.model import Output, ProcessStart, TerminalSize
from runtime.host.serve.answers import BadMessage, request_of
from runtime.host.serve.control import messages, workloadspec
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.messages import STREAMS, Streams
from runtime.host.serve.control.methods import joined
from runtime.host.serve.joining import drain, ended, join

log = logging.getLogger(__name__)

# How long a client may go on sending after the last answer, before the stream is reset.


class SessionMethods:
    """Of ControlService."""

    _context: Context

    @joined
    async def AttachZoneConsole(self, stream: Any) -> None:
        """What the client types is dropped: nothing in a zone reads its kernel's console."""
        first = await request_of(stream)
        entries = self._context.manager.logs(
            first.zone_id, follow=True, tail=-1 if first.replay_history else 0, console=True
        )
        await stream.send_initial_metadata()
        rest = asyncio.ensure_future(drain(stream))
        try:
            async for entry in entries:
                await stream.send_message(pb.ZoneConsoleReply(data=entry.data))
        finally:
            await ended(rest)

    @joined
    async def ExecuteZoneCommand(self, stream: Any) -> None:
        first = await request_of(stream)
        if first.WhichOneof("request") != "start":
            raise BadMessage("first request of a command", expected="its start", got=str(first.WhichOneof("request")))
        start = await self._exec_start(first.start)
        async with await self._context.manager.exec(start) as session:
            if not start.stdin:
                await session.close_stdin()
            take = _take_exec if start.stdin else _refuse_stdin
            show = functools.partial(_show_exec, streams=messages.streams(first.start.process))
            await join(stream, session, take, show, end_is_stdins=True)

    async def _exec_start(self, start: pb.ExecuteZoneCommandStart) -> ProcessStart:
        process = start.process
        if not process.command:
            raise BadRequest("command", expected="a program and its arguments", got="none")
        zone = await self._context.manager.get(start.zone_id)
        there = self._context.manager.list_workloads(zone.id)
        return ProcessStart(
            zone=zone.id,
            workload=start.workload_id or (there[0].id if len(there) == 1 else ""),
            argv=tuple(process.command),
            env=tuple(f"{key}={value}" for key, value in workloadspec.environment(process).items()),
            cwd=process.working_directory,
            user=workloadspec.user(process) or "",
            tty=process.tty,
            stdin=process.stdin,
            size=_size(process.terminal_size) if process.HasField("terminal_size") else None,
        )

    @joined
    async def AttachWorkloadConsole(self, stream: Any) -> None:
        first = await request_of(stream)
        workload = self._context.manager.get_workload(first.workload_id)
        start = ProcessStart(zone=workload.zone_id, workload=workload.id, stdin=True, replay=True)
        async with await self._context.manager.attach(start) as session:
            await _take_workload(first, session)
            show = functools.partial(_show_workload, streams=messages.streams_of(workload))
            await join(stream, session, _take_workload, show)

    @joined
    async def DialNetworkSocket(self, stream: Any) -> None:
        first = await request_of(stream)
        if first.WhichOneof("request") != "start":
            raise BadMessage("first request of a socket", expected="its start", got=str(first.WhichOneof("request")))
        start = first.start
        if not 0 < start.port < 65536:
            raise BadRequest("port", expected="1 to 65535", got=str(start.port))
        async with await self._context.manager.dial(start.zone_id, start.address, start.port) as session:
            await stream.send_initial_metadata()  # the connection stands
            await join(stream, session, _take_socket, _show_socket, end_is_stdins=True)


# -- requests to a session ---------------------------------------------------------------------------------------------


async def _take_exec(message: pb.ExecuteZoneCommandRequest, session: Session) -> None:
    match message.WhichOneof("request"):
        case "stdin":
            if message.stdin.stdin:
                await session.write_stdin(message.stdin.stdin)
            if message.stdin.closed:
                await session.close_stdin()
        case "terminal_resize":
            await session.resize(_size(message.terminal_resize.size))
        case other:
            raise BadMessage("request of a command", expected="input or a size", got=str(other))


async def _refuse_stdin(message: pb.ExecuteZoneCommandRequest, session: Session) -> None:
    if message.WhichOneof("request") == "stdin" and message.stdin.stdin:
        raise BadMessage("input of a command", expected="none, as process.stdin is false", got="some")
    if message.WhichOneof("request") != "stdin":
        await _take_exec(message, session)


async def _take_workload(message: pb.WorkloadConsoleRequest, session: Session) -> None:
    if message.HasField("terminal_resize"):
        await session.resize(_size(message.terminal_resize))
    if message.stdin:
        await session.write_stdin(message.stdin)
    if message.stdin_closed:
        await session.close_stdin()


async def _take_socket(message: pb.DialNetworkSocketRequest, session: Session) -> None:
    if message.WhichOneof("request") != "data":
        raise BadMessage("request of a socket", expected="data", got=str(message.WhichOneof("request")))
    if message.data.content:
        await session.write_stdin(message.data.content)
    else:
        await session.close_stdin()


def _size(size: common_pb2.TerminalSize) -> TerminalSize:
    return TerminalSize(size.rows, size.columns)


# -- a session's output to replies -------------------------------------------------------------------------------------


def _show_exec(output: Output, *, streams: Streams) -> Any:
    if output.kind in STREAMS - streams:
        return None
    match output.kind:
        case "stdout":
            return pb.ExecuteZoneCommandReply(output=pb.ExecuteZoneCommandOutput(stdout=output.data))
        case "stderr":
            return pb.ExecuteZoneCommandReply(output=pb.ExecuteZoneCommandOutput(stderr=output.data))
        case "exit":
            code = output.exit.code if output.exit else 0
            return pb.ExecuteZoneCommandReply(exited=pb.ExecuteZoneCommandExited(exit_code=code))
        case _:
            return None


def _show_workload(output: Output, *, streams: Streams) -> Any:
    if output.kind in STREAMS - streams:
        return None
    match output.kind:
        case "stdout":
            return pb.WorkloadConsoleReply(stdout=output.data)
        case "stderr":
            return pb.WorkloadConsoleReply(stderr=output.data)
        case _:
            return None


def _show_socket(output: Output) -> Any:
    if output.kind != "stdout":
        return None
    return pb.DialNetworkSocketReply(data=pb.DialNetworkSocketData(content=output.data))
