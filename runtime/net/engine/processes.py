"""Processes named by pid and start time: a pid alone may belong to somebody else by now."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from runtime.net.errors import EngineFault

_KILL_TIMEOUT_S = 10.0


def start_time_of(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None when it does not run (or is a zombie).

    Source: proc(5), /proc/pid/stat, fields 3 and 22; the name before them may hold anything, blanks and brackets too.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def hold(pid: int, start_time: int) -> int | None:
    """A descriptor of exactly this process, readable when it ends (the caller closes it); None when it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Compared after the pidfd holds it: from here on the pid cannot become another process's.
    same = False
    try:
        same = start_time_of(pid) == start_time
    finally:
        if not same:
            os.close(pidfd)
    return pidfd if same else None


def ends_within(pid: int, start_time: int, timeout_s: float) -> bool:
    """Has exactly this process ended, or does it in that time? All its threads count, unlike in start_time_of."""
    pidfd = hold(pid, start_time)
    if pidfd is None:
        return True
    try:
        return _ends(pidfd, timeout_s)
    finally:
        os.close(pidfd)


def _ends(pidfd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def kill(pid: int, start_time: int) -> None:
    """Kill exactly this process and wait until it is gone; does nothing when it is gone already.

    Raises: EngineFault when it does not end.
    """
    pidfd = hold(pid, start_time)
    if pidfd is None:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not _ends(pidfd, _KILL_TIMEOUT_S):
            raise EngineFault(f"process {pid}", expected="it to end when killed", got="it still runs")
    except ProcessLookupError:
        pass  # it ended by itself
    finally:
        os.close(pidfd)
