"""Processes that serve a directory for nobody any more are found, and nobody else's are touched."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtime.host.daemon.edge import Edge
from runtime.net.engine.processes import start_time_of
from runtime.share.backend import ENTRY
from runtime.share.strays import strays

Start = Any


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that says it does something, with a log; (pid, start time)."""
    with ExitStack() as undo:

        def start(entry: str, log: Path) -> tuple[int, int]:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as said:
                code = f"import time; time.sleep(600)  # {entry}"
                child = subprocess.Popen([sys.executable, "-c", code], stderr=said)
            undo.callback(child.wait)
            undo.callback(child.kill)
            return child.pid, start_time_of(child.pid) or 0

        yield start


def test_those_of_this_host_that_no_ledger_names_are_found(start: Start, tmp_path: Path) -> None:
    logs = tmp_path / "state/logs"
    forgotten = start(ENTRY, logs / "zone/share.log")
    named = start(ENTRY, logs / "other/share.log")
    start(ENTRY, tmp_path / "another/logs/zone/share.log")  # of another zoned
    start("something else", logs / "zone/share.log")
    assert set(strays(logs, {named})) == {forgotten}
    assert set(strays(logs, ())) == {forgotten, named}


def test_starting_zoned_ends_them(start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    forgotten = start(ENTRY, tmp_path / "zone/share.log")
    named = start(ENTRY, tmp_path / "zone/share.log")
    edge = Edge(hypervisor=cast(Any, None), xenstore=cast(Any, SimpleNamespace()))
    record = {"kind": "process", "share": 0, "pid": named[0], "start_time": named[1]}
    with caplog.at_level(logging.WARNING):
        edge.end_stray_shares(tmp_path, [record])
    assert [start_time_of(pid) == since for pid, since in (forgotten, named)] == [False, True]
    assert f"process {forgotten[0]} serves a directory" in caplog.text
