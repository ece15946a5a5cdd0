"""What is told of processes, whatever they call themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.init.agent import metrics
from runtime.init.channel import frames, jsonwrite


@pytest.fixture
def called():
    """Runs a process with these arguments; its pid."""
    running = []

    def run(*arguments):
        code = "import sys; print(flush=True); sys.stdin.read()"
        made = subprocess.Popen(
            [sys.executable, "-SEc", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        made.stdout.readline()
        running.append(made)
        return made.pid

    yield run
    for made in running:
        made.communicate()


@pytest.mark.parametrize("letter", ["x", '"', "\x01", "\u00e4"])
def test_processes_with_names_of_any_kind_fit_one_message(called, monkeypatch, letter):
    pid = called(letter * 300)
    monkeypatch.setattr(metrics.cgroup, "processes", lambda container: [pid] * 3000)
    told = metrics.processes("main")
    assert frames.message(frames.RESULT, 1, jsonwrite.dumps({"ok": told}))
    assert len(told["processes"]) + told["left_out"] == 3000 and len(told["processes"]) >= 500


def test_of_a_long_command_line_the_beginning_is_read(called):
    """Two thousand processes can share one of a megabyte."""
    pid = called(*["y" * 120_000] * 8)

    def read_bytes():
        return int(Path("/proc/self/io").read_text().split()[1])

    before = read_bytes()
    nothing = read_bytes() - before
    before = read_bytes()
    assert metrics.process(pid)["command"].endswith("y" * 100)
    assert read_bytes() - before - nothing < 20_000 and os.path.getsize(f"/proc/{pid}/cmdline") == 0
