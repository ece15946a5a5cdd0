"""Networks that are there and that no ledger names: their zoned lost its ledgers, or has those of an earlier moment.

A network's directory is made before all that is made for it, and goes last; its engine writes to the log in there.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from runtime.net.engine.processes import start_time_of
from runtime.net.engine.proxy import ENTRY
from runtime.net.errors import NetworkFault
from runtime.net.pasta.engine import ENTRY as KEEPER_ENTRY
from runtime.net.plan import netns_name
from runtime.net.segment import LOG

ENTRIES = (ENTRY, KEEPER_ENTRY)


def strays(run_directory: Path, known: Collection[str]) -> Iterator[list[dict[str, Any]]]:
    """The records by which teardown ends each.

    run_directory:  where networks have their directories. known: those that ledgers name.
    """
    found = run_directory.iterdir() if run_directory.is_dir() else ()
    for directory in sorted(path for path in found if path.is_dir() and str(path) not in known):
        try:
            namespace = netns_name(directory.name)
        except NetworkFault:  # no network has such a name
            continue
        yield [
            {"kind": "net.directory", "path": str(directory)},
            {"kind": "net.netns", "name": namespace},
            *_engines(directory / LOG),
        ]


def is_engine(command_line: str) -> bool:
    """Is a process with this line in /proc/PID/cmdline a network engine, or what keeps one?"""
    return any(entry in command_line for entry in ENTRIES)


def _engines(log: Path) -> Iterator[dict[str, Any]]:
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
            if is_engine(line) and os.readlink(f"/proc/{pid}/fd/2") == str(log):
                yield {"kind": "net.engine", "pid": pid, "start_time": start_time_of(pid)}
        except OSError:  # it has ended
            continue
