"""The `zone` command as a person starts it: a process of its own, on a host that an address leads to."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from typing import Any

from pipeline.recipe import PROJECT
from support.terminals import Terminal

TIMEOUT_S = 300.0
READ_TIMEOUT_S = 300.0


class ZoneCommand:
    """`zone("ps", "-a")` is what it wrote to stdout; `err` is what it wrote to stderr."""

    def __init__(self, address: str) -> None:
        self.address, self.err = address, b""
        self._running: list[subprocess.Popen[bytes]] = []

    def __call__(self, *words: str, code: int = 0, input: bytes = b"", timeout_s: float = TIMEOUT_S) -> str:
        return self.bytes(*words, code=code, input=input, timeout_s=timeout_s).decode()

    def bytes(self, *words: str, code: int = 0, input: bytes = b"", timeout_s: float = TIMEOUT_S) -> bytes:
        """The same, byte for byte. code: what it has to exit with."""
        done = subprocess.run(self._argv(words), cwd=PROJECT, input=input, capture_output=True, timeout=timeout_s)
        self.err = done.stderr
        assert done.returncode == code, (words, done.returncode, done.stderr[-2000:], done.stdout[-2000:])
        return done.stdout

    def json(self, *words: str) -> Any:
        """What it says with --format json."""
        return json.loads(self(*words, "--format", "json"))

    def start(self, *words: str, **files: Any) -> subprocess.Popen[bytes]:
        """Start it and do not wait; its standard files are pipes unless others are given."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._running.append(subprocess.Popen(self._argv(words), cwd=PROJECT, **(pipes | files)))
        return self._running[-1]

    def terminal(self, *words: str) -> Terminal:
        """Start it in a terminal."""
        return Terminal(self.start, *words)

    def remove_zones(self) -> None:
        """End every zone of the host and forget it."""
        if names := self("ps", "-aq").split():
            self("rm", "-f", *names)

    def close(self) -> None:
        """End what still runs of what was started."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            with contextlib.suppress(ValueError):  # its files were closed
                process.communicate()

    def _argv(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "runtime.host.cli", "--host", self.address, *words]


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """What a command writes to stdout, up to and with a text."""
    assert process.stdout is not None
    seen = b""
    while text not in seen:
        assert select.select([process.stdout], [], [], READ_TIMEOUT_S)[0], seen
        data = os.read(process.stdout.fileno(), 4096)
        assert data, (seen, process.stderr.read() if process.stderr else b"")
        seen += data
    return seen
