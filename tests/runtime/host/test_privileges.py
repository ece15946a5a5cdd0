"""What zoned keeps of root's capabilities, seen from /proc in processes that gave up the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import capabilities
from runtime.host import privileges
from runtime.host.daemon.confinement import EVERY_CAPABILITY

PROJECT = Path(__file__).resolve().parents[3]
PROGRAM = """
import json, subprocess, threading
from runtime.host import privileges
def sets(text):
    return {line[:6]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}
privileges.keep_needed()
seen = [sets(open("/proc/thread-self/status").read())]
thread = threading.Thread(target=lambda: seen.append(sets(open("/proc/thread-self/status").read())))
thread.start(); thread.join()
seen.append(sets(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout))
privileges.keep_needed()
print(json.dumps(seen))
"""

# CI is root.
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose capabilities are given up")


def ran(*, user: int = 0) -> list[dict[str, int]]:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, check=False, user=user, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_names_and_numbers_are_the_kernels() -> None:
    for number, why in privileges.NEEDED.items():
        assert why.startswith(f"{EVERY_CAPABILITY[number]}: ")


@needs_root
def test_process_its_threads_and_what_it_starts_have_no_more_than_is_needed() -> None:
    held = capabilities.permitted() & privileges.MASK
    itself, thread, started = ran()
    expected = {"CapInh": 0, "CapPrm": held, "CapEff": held, "CapAmb": 0}
    for sets in (itself, thread, started):
        assert {kind: sets[kind] for kind in expected} == expected
        assert sets["CapBnd"] & ~privileges.MASK == 0
    assert started["CapEff"] & 1 << EVERY_CAPABILITY.index("SYS_MODULE") == 0


@needs_root
def test_user_without_capabilities_is_let_go_on() -> None:
    for sets in ran(user=65534):
        assert sets["CapPrm"] == sets["CapEff"] == 0
