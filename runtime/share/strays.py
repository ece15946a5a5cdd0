"""Processes that serve a directory and that no ledger names: their zoned lost its ledgers, or has earlier ones."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from runtime.net.engine.processes import start_time_of
from runtime.share.backend import ENTRY


def serves_directory(command_line: str) -> bool:
    """Is a process with this line in /proc/PID/cmdline one that serves a directory?"""
    return ENTRY in command_line


def strays(logs: Path, known: Collection[tuple[int, int]], proc: Path = Path("/proc")) -> Iterator[tuple[int, int]]:
    """(pid, start time) of each that is this host's: it writes to a log below `logs`. known: those ledgers name."""
    for pid in (int(name) for name in os.listdir(proc) if name.isdigit()):
        try:
            line = (proc / str(pid) / "cmdline").read_text(errors="replace")
            log = Path(os.readlink(proc / str(pid) / "fd" / "2"))
        except OSError:  # it has ended
            continue
        start_time = start_time_of(pid)
        if serves_directory(line) and log.is_relative_to(logs) and start_time and (pid, start_time) not in known:
            yield pid, start_time
