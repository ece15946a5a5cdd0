"""A terminal with a command in it, as a person has one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Callable


class Terminal:
    """33 rows, 101 columns, and `zone` in it. start: starts it, with standard files of our choice."""

    def __init__(self, start: Callable[..., subprocess.Popen[bytes]], *words: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(33, 101)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = start(*words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: bytes) -> None:
        """Read until it was shown."""
        while text not in self.seen:
            assert select.select([self.ours], [], [], 120)[0], self.seen
            self.seen += os.read(self.ours, 4096)
        self.seen = self.seen.partition(text)[2]

    def type(self, data: bytes) -> None:
        os.write(self.ours, data)

    def end(self) -> int:
        """The command's exit code; the terminal has to be as it was."""
        code = self.process.wait(120)
        assert termios.tcgetattr(self._theirs) == self.before
        return code

    def close(self) -> None:
        os.close(self.ours)
        os.close(self._theirs)
