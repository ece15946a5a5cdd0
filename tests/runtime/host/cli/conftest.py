"""The `zone` command as a user types it, against a zoned that is a script."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fakeprocesses import Run
from support.fakezoned import FakeZoned

from runtime.host.api import host_pb2 as pb
from runtime.host.cli import main

PROJECT = Path(__file__).resolve().parents[4]


class Zone:
    """`zone("ps", "-a")`: what it wrote to stdout; `err` has the rest."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd, self.err = capfd, ""

    def __call__(self, *words: str, code: int = 0) -> str:
        self._capfd.readouterr()
        try:
            done = main(words)
        except SystemExit as end:
            done = int(end.code or 0)
        captured = self._capfd.readouterr()
        self.err = captured.err
        assert done == code, captured.err + captured.out
        return captured.out

    def sentence(self, *words: str, code: int = 1) -> str:
        """The one error line of a command that wrote nothing else."""
        assert self(*words, code=code) == ""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def zoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeZoned]:
    """A host with nothing on it; commands of this process and of its children find it."""
    monkeypatch.setenv("ZONEWRIGHT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.delenv("ZONEWRIGHT_CONFIG", raising=False)
    with FakeZoned(tmp_path / "zoned.sock") as fake:
        monkeypatch.setenv("ZONE_HOST", fake.address)
        yield fake


@pytest.fixture
def zone(zoned: FakeZoned, capfd: pytest.CaptureFixture[str]) -> Zone:
    return Zone(capfd)


@pytest.fixture
def start(zoned: FakeZoned) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `zone` as a process of its own, whose stdin, stdout and stderr are pipes unless said otherwise."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: str, code: str = "", **options: object) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, *(("-c", code) if code else ("-m", "runtime.host.cli")), *words]
        running.append(subprocess.Popen(command, cwd=PROJECT, env=os.environ, **(pipes | options)))  # type: ignore[call-overload]
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def programs(zoned: FakeZoned) -> threading.Event:
    """Programs in the zones; the event is set when `wait` has started."""
    started = threading.Event()

    async def cat(run: Run) -> int:
        while data := await run.read():
            if isinstance(data, bytes):
                await run.out(data)
        return 0

    async def both(run: Run) -> int:
        await run.out(b"out\0\xff\n")
        await run.err(b"err\n")
        return 3

    async def wait(run: Run) -> int:
        started.set()
        return 128 + await run.signals.get()

    async def stubborn(run: Run) -> int:
        started.set()
        while True:
            await run.err(b"got %d\n" % await run.signals.get())

    async def terminal(run: Run) -> int:
        """Echoes; `size` says the window's size, `exit` ends it."""
        size = (run.start.size.rows, run.start.size.columns)
        await run.out(b"$ ")
        line = b""
        while True:
            data = await run.read()
            if isinstance(data, pb.TerminalSize):
                await run.out(b"resized %dx%d\r\n" % (data.rows, data.columns))
                continue
            line += data
            await run.out(data)
            if line.endswith(b"size\r"):
                await run.out(b"%dx%d\r\n" % size)
                line = b""
            elif line.endswith(b"exit\r"):
                return 7

    zoned.programs.update(cat=cat, both=both, wait=wait, stubborn=stubborn, terminal=terminal)
    return started
