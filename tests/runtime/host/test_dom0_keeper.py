"""What keeps a zoned in dom0, with a stand-in for zoned: what follows a death, what does not, where the log goes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from support.containers import eventually

from pipeline.recipe import PROJECT
from runtime.host.dom0 import daemonstate, keeper

# A zoned that says a line, tells its pid and its group, and waits; or ends by itself.
STAND_IN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {project!r})
from runtime.host.dom0 import keeper
def serve():
    print("serving", flush=True)
    os.write({told}, f"{{os.getpid()}} {{os.getpgid(0)}}\\n".encode())
    if {ends}:
        return 3
    signal.pause()
keeper.LOG_BYTES, keeper.APART_S = 20, 0.05
keeper.keep(serve, run=Path({run!r}))
"""
PAUSE = "34 "  # pause(2), in /proc/PID/syscall. Source: asm/unistd_64.h


@dataclass
class Kept:
    """A keeper, and what its zoneds tell."""

    pid: int
    told: IO[bytes]

    def next(self) -> int:
        """The pid of the next zoned, which leads a process group."""
        pid, group = self.told.readline().split()
        assert pid == group
        return int(pid)


Keep = Callable[..., AbstractContextManager[Kept]]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    @contextlib.contextmanager
    def kept(*, ends: bool = False) -> Iterator[Kept]:
        reading, writing = os.pipe()
        code = STAND_IN.format(project=str(PROJECT), told=writing, ends=ends, run=str(tmp_path))
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[writing])
        os.close(writing)
        with os.fdopen(reading, "rb") as told:
            try:
                yield Kept(process.pid, told)
            finally:
                process.kill()
                process.wait()
                told.read()  # to its end, which is that of the last zoned

    return kept


def test_a_killed_zoned_is_followed_by_another(keep: Keep) -> None:
    with keep() as kept:
        pids = [kept.next()]
        for _ in range(3):
            os.kill(pids[-1], signal.SIGKILL)
            pids.append(kept.next())
        assert len(set(pids)) == 4


def test_a_zoned_that_ends_by_itself_is_followed_as_well(keep: Keep) -> None:
    with keep(ends=True) as kept:
        assert len({kept.next() for _ in range(3)}) == 3


def test_it_ends_with_its_keeper(keep: Keep) -> None:
    with keep() as kept:
        kept.next()
        os.kill(kept.pid, signal.SIGKILL)
        assert kept.told.read() == b""


def test_none_follows_once_the_host_goes_down(keep: Keep, tmp_path: Path) -> None:
    with keep() as kept:
        last = kept.next()
        (tmp_path / daemonstate.STOPPING).touch()
        os.kill(last, signal.SIGKILL)
        assert eventually(lambda: Path(f"/proc/{kept.pid}/syscall").read_text().startswith(PAUSE), 120)
        os.kill(kept.pid, signal.SIGKILL)
        assert kept.told.read() == b""


def test_its_words_are_in_a_log_that_is_turned_when_it_is_long(keep: Keep, tmp_path: Path) -> None:
    with keep() as kept:
        for _ in range(4):
            os.kill(kept.next(), signal.SIGKILL)
        kept.next()
    older = tmp_path / f"{keeper.LOG}.1"
    assert older.read_text() == "serving\n" * 3 and (tmp_path / keeper.LOG).read_text() == "serving\n" * 2
