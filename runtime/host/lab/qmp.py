"""QEMU's machine protocol: one client for one piece of work, with a deadline on everything.

Source:  QEMU, docs/interop/qmp-spec; a socket serves one client at a time, so the caller holds the lab's lock.
"""

from __future__ import annotations

import array
import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime.host.lab.errors import LabFailed, QmpError
from runtime.host.unixsocket import connect_unix
from runtime.host.wire import Lines

TIMEOUT_S = 30.0


class Qmp:
    """A connection that has greeted. A context manager."""

    def __init__(self, connection: socket.socket, *, timeout_s: float = TIMEOUT_S) -> None:
        self._socket = connection
        self._lines = Lines()
        self._waiting: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        try:
            greeting = self._next(time.monotonic() + timeout_s)
            if "QMP" not in greeting:
                raise QmpError("QEMU", expected="a QMP greeting", got=json.dumps(greeting)[:200])
            self.execute("qmp_capabilities", timeout_s=timeout_s)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def connect(cls, path: Path, *, timeout_s: float = TIMEOUT_S) -> Qmp:
        """Connect to the socket of a running QEMU. Raises LabFailed, QmpError."""
        try:
            connection = connect_unix(path, timeout_s=timeout_s)
        except OSError as error:
            raise LabFailed(
                "QEMU", expected=f"it to listen on {path.name}", got=error.strerror or str(error)
            ) from error
        return cls(connection, timeout_s=timeout_s)

    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        fd: int | None = None,
    ) -> Any:
        """Run one command and return its value; `fd` travels with it (for getfd).

        Raises:  QmpError (QEMU's own words), LabFailed when QEMU ends or does not answer in time.
        """
        line = json.dumps({"execute": command, "arguments": dict(arguments or {})}).encode() + b"\n"
        deadline = time.monotonic() + timeout_s
        try:
            if fd is not None:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
                self._socket.sendmsg([line], rights)
            else:
                self._socket.sendall(line)
        except OSError as error:
            raise self._ended(str(error)) from error
        while True:
            document = self._next(deadline, command)
            if "event" in document:
                self.events.append(document)
            elif "error" in document:
                raise QmpError(f"QEMU, {command}", got=str(document["error"].get("desc", document["error"])))
            elif "return" in document:
                return document["return"]

    def human(self, line: str, *, expect: Callable[[str], bool] = lambda text: text == "") -> str:
        """Run a command of the human monitor, whose errors come as text. Raises QmpError unless `expect` accepts it."""
        text = str(self.execute("human-monitor-command", {"command-line": line})).strip()
        if not expect(text):
            raise QmpError(f"QEMU, {line.split(' ', 1)[0]}", got=text)
        return text

    def wait_event(self, accepts: Callable[[dict[str, Any]], bool], *, timeout_s: float, what: str) -> dict[str, Any]:
        """The first event, of those that came and those to come, that `accepts` wants. Raises LabFailed."""
        deadline = time.monotonic() + timeout_s
        while True:
            for index, event in enumerate(self.events):
                if accepts(event):
                    del self.events[: index + 1]
                    return event
            self.events.clear()
            document = self._next(deadline, what)
            if "event" in document:
                self.events.append(document)

    def _next(self, deadline: float, what: str = "its greeting") -> dict[str, Any]:
        while not self._waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabFailed("QEMU", expected=f"an answer to {what} in time", got="none")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise self._ended(str(error)) from error
            if not data:
                raise self._ended("it closed the connection")
            self._waiting = list(self._lines.feed(data))
        return self._waiting.pop(0)

    def _ended(self, why: str) -> LabFailed:
        return LabFailed("QEMU", got=f"it ended: {why}")

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
