"""The far end of `ssh://`: standard input and output joined with zoned's unix socket."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from runtime.host.client.endpoint import SOCKET, is_control_domain
from runtime.host.faults import HostDown
from runtime.host.unixsocket import connect_unix

CHUNK_BYTES = 1 << 16
CONNECT_TIMEOUT_S = 10.0


def dial_stdio(path: Path = SOCKET, *, stdin: int = 0, stdout: int = 1) -> None:
    """Carry bytes both ways until zoned closes its side; the end of the input closes ours.

    Raises:  HostDown where nobody listens, and no zoned can be started. Effects: starts this machine's own on demand.
    """
    if path == SOCKET and is_control_domain():
        from pipeline.progress import Progress
        from runtime.host.hosts import XenHost

        XenHost().up(Progress())
    try:
        connection = connect_unix(path, timeout_s=CONNECT_TIMEOUT_S)
    except OSError as error:
        raise HostDown(
            "host xen",
            expected=f"zoned to listen on {path}",
            got=(error.strerror or str(error)).lower(),
            temporary=True,
        ) from error
    with connection:
        connection.settimeout(None)
        # Two threads that each block: a loop around select would have to buffer what the other side does not take yet.
        threading.Thread(target=_pump_in, args=(stdin, connection), daemon=True).start()
        _pump_out(connection, stdout)


def _pump_in(stdin: int, connection: socket.socket) -> None:
    try:
        while data := os.read(stdin, CHUNK_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # zoned has closed; the other direction ends by itself


def _pump_out(connection: socket.socket, stdout: int) -> None:
    try:
        while data := connection.recv(CHUNK_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(stdout, view) :]
    except OSError:
        pass  # ssh has gone
