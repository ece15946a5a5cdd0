"""The QEMU process: started so that it outlives us, found again by its mark, ended without ever hitting another one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runtime.host.lab.errors import LabFailed

PROC = Path("/proc")
LOG = "qemu.log"
TERM_TIMEOUT_S = 5.0
KILL_TIMEOUT_S = 10.0


def spawn(argv: Sequence[str], *, cwd: Path, pass_fds: Sequence[int] = ()) -> int:
    """Start QEMU in a session of its own and return its pid. What it says goes to qemu.log in `cwd`."""
    with open(cwd / LOG, "ab") as log:
        process = subprocess.Popen(
            argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=pass_fds
        )
    # It is not ours to wait for: whoever looks at it later does so by pid and start time.
    process.returncode = 0
    return process.pid


def boot_id() -> str:
    """What tells one boot of this machine from the next."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or only waits to be reaped.

    Source:  proc(5), /proc/pid/stat, fields 3 and 22; the name in field 2 may hold anything, brackets included.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_alive(pid: int, ticks: int, boot: str) -> bool:
    """Does the process of that record run? A pid used again, or another boot, is a no."""
    return boot == boot_id() and start_ticks(pid) == ticks


def marked(mark: str) -> list[int]:
    """Every process of ours that was started with this mark as its QEMU name."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        names = [words[index + 1] for index, word in enumerate(words[:-1]) if word == b"-name"]
        if any(name.split(b",")[0] == mark.encode() for name in names) and start_ticks(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def end(pid: int, mark: str) -> None:
    """End a QEMU with this mark; returns when it is gone. Raises LabFailed when it cannot be ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if pid not in marked(mark):  # looked at after opening: from here on the handle names this very process
            return
        for number, timeout_s in ((signal.SIGTERM, TERM_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if _wait(handle, timeout_s):
                return
    finally:
        os.close(handle)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    raise LabFailed(f"QEMU {pid}", expected="its end", got="still there after SIGKILL")


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait for the end of a process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return _wait(handle, timeout_s)
    finally:
        os.close(handle)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _wait(handle: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def last_words(directory: Path, *names: str, lines: int = 3) -> str:
    """The end of what QEMU, Xen and dom0 said, for an error."""
    for name in names:
        try:
            text = (directory / name).read_text(errors="replace")
        except OSError:
            continue
        printable = "".join(char if char.isprintable() or char == "\n" else " " for char in text[-4000:])
        if tail := [line.strip() for line in printable.splitlines() if line.strip()][-lines:]:
            return " | ".join(tail)[:600]
    return "no message"
