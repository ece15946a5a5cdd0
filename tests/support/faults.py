"""Work in a process of its own, killed or failed at a chosen system call by strace.

The process is forked with everything imported, says when it is at a gate, waits there until strace has it, and only
then begins: so the calls counted are those of the work. Being attached to is not yet being watched: that it is it sees
by a call that nobody else makes, and whose result strace changes. strace counts calls by name, and in each thread and
process for itself; a Point is the n-th call of a name in whichever of them gets so far first.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from pipeline.errors import SentenceError

P = TypeVar("P")
WHOLE = os.environ.get("ZONEWRIGHT_FAULTS") == "all"  # every point, not a sample: ./doit faults
DEADLINE_S = 300.0
DONE, SAID, OS_ERROR, DEFECT = 0, 3, 4, 5
CALL = re.compile(r"^(?:\[pid +)?(\d+)?\]? *([a-z_0-9]+)\(")
PROBE, WATCHED = "sched_get_priority_max", 77  # the call, and what strace makes of its result
# Never injected: without them there is no process to look at, or nothing about files in them; the gate is a select.
ALWAYS_THERE = {"exit", "exit_group", "rt_sigreturn", "restart_syscall", "execve", "select", "pselect6", PROBE}
# What changes a file system, or makes a change last.
CHANGES = (
    "openat", "creat", "write", "pwrite64", "writev", "ftruncate", "fallocate", "fsync", "fdatasync", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "linkat", "symlink", "fchmod",
    "chmod", "fchmodat", "utimensat", "flock", "splice", "copy_file_range", "sendfile",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A call in the course of some work."""

    name: str
    nth: int

    def inject(self, what: str) -> str:
        """The injection at this point: `signal=KILL`, `error=ENOSPC`."""
        return f"inject={self.name}:{what}:when={self.nth}"

    def __str__(self) -> str:
        return f"{self.name}#{self.nth}"


@dataclass(frozen=True)
class Outcome:
    """How the work ended: an exit status as `os.waitpid` gives it, what it said, and the calls strace saw."""

    status: int
    text: str
    calls: list[tuple[int, str]]

    @property
    def killed(self) -> bool:
        """By the injected signal?"""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL

    @property
    def code(self) -> int:
        """DONE, SAID, OS_ERROR or DEFECT; negative for a signal."""
        return os.waitstatus_to_exitcode(self.status)

    def points(self, names: Sequence[str] = ()) -> list[Point]:
        """Every point of this run, or those of some calls."""
        counts: Counter[str] = Counter()
        for (_, name), count in Counter(self.calls).items():
            if name not in ALWAYS_THERE and (not names or name in names):
                counts[name] = max(counts[name], count)
        return [Point(name, nth) for name in sorted(counts) for nth in range(1, counts[name] + 1)]


@cache
def require_strace() -> None:
    """Skip, naming what is missing, where processes cannot be traced."""
    if not any(os.access(f"{directory}/strace", os.X_OK) for directory in os.environ["PATH"].split(":")):
        pytest.skip("strace is not installed")
    done = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ptrace is not allowed here: {done.stderr.strip()}")


def run(
    work: Callable[[], object], place: Path, *, inject: str = "", trace: Sequence[str] = (), traced: bool = True
) -> Outcome:
    """Do the work in a forked process, under strace. Raises AssertionError where it does not end in time."""
    log, words = place / "strace.log", place / "words"
    gate, opener = socket.socketpair()
    pid = os.fork()
    if not pid:
        _work(work, gate, opener, words, watched=traced)
    gate.close()
    with opener:  # the gate is open where this ends
        opener.recv(1)
        tracer = _attach(pid, log, inject, trace) if traced else None
    try:
        status = _wait(pid)
    finally:
        if tracer is not None:
            _end(tracer)
    calls = list(_calls(log.read_text(errors="replace"))) if traced else []
    text = words.read_text() if words.exists() else ""
    for path in (log, words):
        path.unlink(missing_ok=True)
    return Outcome(status, text, calls)


def _work(
    work: Callable[[], object], gate: socket.socket, opener: socket.socket, words: Path, *, watched: bool
) -> None:
    """The forked process: never returns."""
    code, text = DEFECT, ""
    try:
        opener.close()
        devnull = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(devnull, fd)
        gate.send(b"!")
        select.select([gate], [], [])  # no call that is ever made to fail
        while watched and os.sched_get_priority_max(os.SCHED_OTHER) != WATCHED:
            select.select([], [], [], 0.001)
        work()
        code = DONE
    except SentenceError as error:
        code, text = SAID, str(error)
    except OSError as error:
        code, text = OS_ERROR, f"{error!r}"
    except BaseException as error:
        import traceback

        text = "".join(traceback.format_exception(error))
    finally:
        for _ in range(3):  # the injected error may hit this as well
            try:
                words.write_text(text)
                break
            except OSError:
                continue
        os._exit(code)


def _attach(pid: int, log: Path, inject: str, trace: Sequence[str]) -> subprocess.Popen[bytes]:
    words = ["strace", "-f", "-qq", "-o", str(log), "-p", str(pid), "-s", "0"]
    words += ["-e", f"inject={PROBE}:retval={WATCHED}"]
    words += ["-e", f"trace={','.join([*trace, PROBE])}"] if trace else []
    words += ["-e", inject] if inject else []
    tracer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + DEADLINE_S
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert tracer.stderr is not None
            raise AssertionError(f"strace did not attach: {tracer.stderr.read().decode()}")
        time.sleep(0.001)
    return tracer


def _wait(pid: int) -> int:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"the work did not end within {DEADLINE_S:.0f} s")
        time.sleep(0.002)


def _end(tracer: subprocess.Popen[bytes]) -> None:
    """strace ends with the last process it traces: a writer whose feeder was killed reads the end, and ends too."""
    try:
        tracer.wait(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        tracer.kill()
        raise AssertionError(f"a child of the work still runs after {DEADLINE_S:.0f} s") from None
    finally:
        if tracer.stderr is not None:
            tracer.stderr.close()


def _calls(log: str) -> Iterator[tuple[int, str]]:
    for line in log.splitlines():
        if match := CALL.match(line):
            yield int(match[1] or 0), match[2]


def spread(points: list[P], count: int) -> list[P]:
    """`count` of the points, evenly spread; all of them where the whole sweep is asked for."""
    if WHOLE or len(points) <= count:
        return points
    return [points[index * len(points) // count] for index in range(count)]


def say(line: str) -> None:
    """A line for whoever runs the whole sweep and wants the figures (pytest -s)."""
    sys.stderr.write(f"\n{line}\n")
