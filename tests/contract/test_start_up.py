"""What the commands people type most must not pay for at their start."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fakezoned import FakeZoned

PROJECT = Path(__file__).resolve().parents[2]
TELL = """
import json, os, sys
from runtime.host.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
os.write(int(os.environ["TELL"]), json.dumps(sorted(sys.modules)).encode())
sys.exit(code)
"""
LIBRARIES = {"rich", "urllib3", "requests", "jsonschema", "oras", "zstandard", "isal", "cryptography", "cffi", "doit"}
LIBRARIES |= {"libarchive", "PySquashfsImage", "elftools", "pyxs", "grpc"}
STANDARD = {"tomllib", "tarfile", "ctypes", "urllib.request", "http.client", "multiprocessing", "difflib", "pydoc"}
OURS = {"pipeline.env", "pipeline.store", "pipeline.fetch", "pipeline.remote", "pipeline.compose", "pipeline.squashfs"}
OURS |= {"runtime.host.lab.lab", "runtime.host.actions", "runtime.host.daemon", "runtime.boot", "runtime.net"}
HOST = {"asyncio", "grpclib", "google.protobuf", "ssl", "socket", "runtime.host.client", "runtime.host.hosts"}


@pytest.fixture
def zoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeZoned]:
    with FakeZoned(tmp_path / "zoned.sock") as fake:
        fake.add("web")
        monkeypatch.setenv("ZONE_HOST", fake.address)
        yield fake


def modules(*words: str, terminal: bool = False) -> set[str]:
    """What one run of a command had imported when it was over."""
    told, tell = os.pipe()
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", TELL, *words],
        cwd=PROJECT,
        env=os.environ | {"TELL": str(tell)},
        pass_fds=[tell],
        stdout=theirs if terminal else subprocess.DEVNULL,
    )
    os.close(tell)
    with os.fdopen(told) as pipe:
        found = json.load(pipe)
    assert done.wait(120) == 0
    os.close(ours)
    os.close(theirs)
    return set(found)


@pytest.mark.parametrize(
    "words", [("ps",), ("ps", "--format", "json"), ("inspect", "web"), ("port", "web"), ("logs", "web")]
)
def test_question_of_zoned_imports_nothing_heavy(zoned: FakeZoned, words: tuple[str, ...]) -> None:
    assert sorted((LIBRARIES | STANDARD | OURS) & modules(*words)) == []


def test_help_and_completion_scripts_need_no_host_at_all() -> None:
    for words in (("--help",), ("run", "--help"), ("completion", "bash")):
        assert sorted((LIBRARIES | STANDARD | OURS | HOST) & modules(*words)) == []


def test_list_of_zones_needs_no_more_on_a_terminal(zoned: FakeZoned) -> None:
    assert sorted((LIBRARIES | STANDARD | OURS) & modules("ps", terminal=True)) == []
