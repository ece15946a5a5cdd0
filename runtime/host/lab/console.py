"""The console of Xen and dom0, for a person: what was said last, then live, both ways. Ctrl-] leaves."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from runtime.host.lab.errors import LabDown
from runtime.host.unixsocket import connect_unix

LEAVE = b"\x1d"
TAIL_BYTES = 4096


def console_tail(log: Path, size_bytes: int = TAIL_BYTES) -> bytes:
    """The last bytes of the console's log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size_bytes))
            return file.read()
    except OSError:
        return b""


def attach_console(socket_path: Path, log: Path, *, stdin: int = 0, stdout: int = 1) -> None:
    """Join a terminal and the console until Ctrl-], the end of input, or the end of the lab.

    Raises:  LabDown. Effects: the terminal is in raw mode meanwhile.
    """
    try:
        connection = connect_unix(socket_path, timeout_s=5)
    except OSError as error:
        raise LabDown("the lab's console", got="the lab is not up", hint="zone host up") from error
    with connection, _raw(stdin):
        connection.settimeout(None)
        os.write(stdout, console_tail(log))
        while True:
            ready, _, _ = select.select([connection.fileno(), stdin], [], [])
            if connection.fileno() in ready:
                data = connection.recv(4096)
                if not data:
                    return
                os.write(stdout, data)
            if stdin in ready:
                typed = os.read(stdin, 1024)
                before, leave, _ = typed.partition(LEAVE)
                connection.sendall(before)
                if leave or not typed:
                    return


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return
    saved = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)
