"""The whole channel without a zone: two processes, a real terminal between them, and a kill -9 of the host's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import terminalagent
from support.fakeagent import DescriptorTransport, in_loop

from runtime.host.agentlink.link import AgentLink
from runtime.init.channel import frames

PROJECT = Path(__file__).resolve().parents[4]
ENVIRONMENT = {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}", "PATH": os.environ["PATH"]}


def program(role: str, descriptor: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(terminalagent.__file__), role]
    return subprocess.Popen(command, stdin=descriptor, stdout=subprocess.PIPE, env=ENVIRONMENT)


@pytest.fixture
def terminal() -> Iterator[int]:
    """The host's end of a terminal whose other end an agent has."""
    master, slave = os.openpty()
    tty.setraw(slave)
    agent = program("agent", slave)
    yield master
    agent.kill()
    agent.communicate()
    os.close(slave)
    os.close(master)


@in_loop
async def test_bytes_of_any_value_come_through_a_terminal(terminal: int) -> None:
    link = AgentLink(DescriptorTransport(os.dup(terminal)), "web")
    link.start()
    await link.connected.wait()
    data = os.urandom(200_000)
    stream = await link.open("exec", {"process": {"argv": ["code", "7"]}})
    await stream.write(0, data[:60_000])
    await stream.write(0, data[60_000:120_000])
    got = b""
    while len(got) < 120_000:
        kind, _, piece = await stream.__anext__()
        got += piece if kind == frames.DATA else b""  # type: ignore[operator]
    await stream.write(0, data[120_000:])
    await stream.eof(0)
    async for kind, _, piece in stream:
        got += piece if kind == frames.DATA else b""  # type: ignore[operator]
    assert got == data
    assert await stream.result() == {"exit": {"code": 7}}
    await link.close()


@in_loop
async def test_the_next_host_gets_its_session_wherever_the_last_one_was_killed(terminal: int) -> None:
    for _ in range(3):
        victim = program("host", terminal)
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"amid\n"
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        link = AgentLink(DescriptorTransport(os.dup(terminal)), "web")
        link.start()
        await link.connected.wait()
        stream = await link.open("logs", {"from": {"1": 1 << 20}})
        got = b"".join([bytes(piece) async for kind, _, piece in stream if kind == frames.DATA])
        assert got == bytes(range(256)) * 4096
        assert await link.call("ping") == {}
        await link.close()
