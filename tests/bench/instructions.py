"""How many instructions a program executes in user mode, where the clock is too noisy: with whatever it forks.

    python instructions.py --from NAME (--to NAME | --to-first-write) COMMAND [ARGUMENT…]

Counting begins when a process executes a program called NAME (--from), and ends when one of its tree executes another
(--to) or writes to a file (--to-first-write). The processor's own counter is read where the kernel lets one have it;
else every instruction is stepped over (stepper.c, which needs gcc), which takes some microseconds each. Both count the
same: a string instruction once. What the kernel does on behalf of the program is in neither.
Prints {"instructions": N, "by": "counter" or "steps"}.

Source:  ptrace(2), perf_event_open(2); include/uapi/linux/ptrace.h, perf_event.h.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

TRACEME, PEEKUSER, CONT, SINGLESTEP, SETOPTIONS, GETEVENTMSG = 0, 3, 7, 9, 0x4200, 0x4201
FORK, VFORK, CLONE, EXEC = 1, 2, 3, 4  # events; the options are 1 << event
EXITKILL = 1 << 20
OPTIONS = 1 << FORK | 1 << VFORK | 1 << CLONE | 1 << EXEC | EXITKILL
RIP = 16 * 8  # struct user_regs_struct
SOURCE = Path(__file__).with_name("stepper.c")
PERF_EVENT_OPEN = 298
# perf_event_attr: type (hardware), size, config (instructions), period, sample_type, read_format, flags
ATTRIBUTES = struct.Struct("<IIQQQQQ64x")
INHERIT, EXCLUDE_KERNEL, EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def counter(pid: int) -> int | None:
    """A descriptor that counts the instructions of a process and its future children; None where there is none."""
    attributes = ATTRIBUTES.pack(0, ATTRIBUTES.size, 1, 0, 0, 0, INHERIT | EXCLUDE_KERNEL | EXCLUDE_HV)
    fd: int = _libc.syscall(PERF_EVENT_OPEN, attributes, pid, -1, -1, 0)
    return fd if fd >= 0 else None


def stepper(directory: Path) -> ctypes.CDLL:
    """stepper.c, compiled. Raises SystemExit where there is no compiler."""
    library = directory / "stepper.so"
    try:
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    except FileNotFoundError:
        raise SystemExit("counting instructions: expected gcc to compile the stepper, found none") from None
    made = ctypes.CDLL(str(library))
    made.add.argtypes = [ctypes.c_int, ctypes.c_ulong]
    return made


class Tracer:
    """Follows a tree of processes from one exec to another, or to the first write."""

    def __init__(self, begin: str, end: str | None, stepper: ctypes.CDLL) -> None:
        self._begin, self._end, self._stepper = begin, end, stepper
        self._fd: int | None = None
        self._stepped: set[int] = set()
        self._known: set[int] = set()
        self._early: set[int] = set()  # stopped before their parent's event told whose they are
        self._count = ctypes.c_ulong()
        self.by = ""

    @property
    def count(self) -> int:
        """Instructions so far."""
        return self._count.value

    def run(self, command: list[str]) -> None:
        """Start a command and follow it. Raises SystemExit where it ends too early."""
        pid = os.fork()
        if not pid:
            _become(command, no_files=self._end is None)
        os.waitpid(pid, 0)
        self._known.add(pid)
        self._ptrace(SETOPTIONS, pid, OPTIONS)
        self._resume(pid)
        raw = ctypes.c_int()
        while self._known:
            pid, status = self._stepper.follow(ctypes.byref(raw), ctypes.byref(self._count)), raw.value
            if pid < 0:
                raise SystemExit(f"waitpid: {os.strerror(-pid)}")
            if not os.WIFSTOPPED(status):
                self._known.discard(pid)
                self._stepped.discard(pid)
                self._stepper.drop(pid)
            elif self._stopped(pid, os.WSTOPSIG(status), status >> 16):
                self._finish()
                return
        raise SystemExit(f"{command[0]}: ended before what was waited for")

    def _stopped(self, pid: int, number: int, event: int) -> bool:
        """Is this the end?"""
        if event == EXEC:
            return self._executed(pid)
        if event in (FORK, VFORK, CLONE):
            self._forked(pid)
        elif pid not in self._known:
            self._early.add(pid)
            return False
        elif number == signal.SIGXFSZ and self._end is None and self.by:
            return True
        elif number != signal.SIGTRAP:
            self._resume(pid, number)
            return False
        self._resume(pid)
        return False

    def _executed(self, pid: int) -> bool:
        name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        if self.by and name == self._end:
            return True
        if not self.by and name == self._begin:
            self._fd = counter(pid)
            self.by = "counter" if self._fd is not None else "steps"
            if self._fd is None:
                self._step(pid, self._where(pid))  # the first stop is the exec's own, before any instruction
        self._resume(pid)
        return False

    def _forked(self, pid: int) -> None:
        child = ctypes.c_ulong()
        self._ptrace(GETEVENTMSG, pid, ctypes.addressof(child))
        self._known.add(child.value)
        if pid in self._stepped:
            self._step(child.value, 0)
        if child.value in self._early:
            self._early.discard(child.value)
            self._resume(child.value)

    def _step(self, pid: int, at: int) -> None:
        if self._stepper.add(pid, at):
            raise SystemExit("counting instructions: expected fewer processes than there are")
        self._stepped.add(pid)

    @staticmethod
    def _where(pid: int) -> int:
        found: int = _libc.ptrace(PEEKUSER, pid, RIP, None)
        return found

    def _resume(self, pid: int, number: int = 0) -> None:
        # Whoever is traced from its birth on stops with SIGSTOP once, which nobody sent.
        number = 0 if number == signal.SIGSTOP else number
        self._ptrace(SINGLESTEP if pid in self._stepped else CONT, pid, number)

    def _finish(self) -> None:
        if self._fd is not None:
            self._count.value = struct.unpack("<Q", os.read(self._fd, 8))[0]
        # What is left of the tree ends with us: EXITKILL.

    @staticmethod
    def _ptrace(request: int, pid: int, data: int) -> None:
        if _libc.ptrace(request, pid, None, data) == -1 and ctypes.get_errno() != 3:  # ESRCH: killed meanwhile
            raise SystemExit(f"ptrace {request} of {pid}: {os.strerror(ctypes.get_errno())}")


def _become(command: list[str], *, no_files: bool) -> None:
    """In the child: the command, traced. A write to a file is an attempt to make it too large, which is a signal."""
    if no_files:
        os.dup2(os.open("/tmp", os.O_TMPFILE | os.O_WRONLY, 0o600), 2)
        os.dup2(2, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _libc.ptrace(TRACEME, 0, None, None)
    os.kill(os.getpid(), signal.SIGSTOP)
    os.execvp(command[0], command)


def words(begin: str, end: str | None = None) -> list[str]:
    """The words before a command that have it counted."""
    until = ["--to-first-write"] if end is None else ["--to", end]
    return [sys.executable, str(Path(__file__)), "--from", begin, *until, "--"]


def count(command: list[str], *, begin: str, end: str | None = None, timeout_s: float = 3600) -> tuple[int, str]:
    """(instructions, how they were counted) of a command, by a process of its own. Raises NotMeasured."""
    argv = [*words(begin, end), *command]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    return read(done.stdout, done.stderr)


def read(out: str, err: str) -> tuple[int, str]:
    """What a counting printed. Raises NotMeasured."""
    from run import NotMeasured

    last = out.splitlines()[-1:]
    if not last or not last[0].startswith('{"instructions"'):
        raise NotMeasured(f"instructions were not counted: {err.strip()[-400:]}")
    found = json.loads(last[0])
    return found["instructions"], found["by"]


def main() -> None:
    """As the module's docstring says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="begin", required=True)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--to")
    group.add_argument("--to-first-write", action="store_true")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zb-step-") as scratch:
        tracer = Tracer(given.begin, given.to, stepper(Path(scratch)))
    tracer.run(given.command)
    print(json.dumps({"instructions": tracer.count, "by": tracer.by}), flush=True)


if __name__ == "__main__":
    main()
