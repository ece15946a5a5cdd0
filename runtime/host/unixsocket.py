"""Unix sockets at any path."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from runtime.unixconnect import connect


def connect_unix(path: Path, *, timeout_s: float) -> socket.socket:
    """Connect to a unix socket; the path may be longer than the 108 bytes a socket address holds.

    Raises:  OSError, as connect(2) does; TimeoutError where there is no room for one more client so long.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connect(connection, f"/proc/self/fd/{directory}/{path.name}", timeout_s)
            connection.settimeout(timeout_s)
        finally:
            os.close(directory)
    except BaseException:
        connection.close()
        raise
    return connection
