"""Unix sockets at any path."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def connect_unix(path: Path, *, timeout_s: float) -> socket.socket:
    """Connect to a unix socket; the path may be longer than the 108 bytes a socket address holds.

    Raises:  OSError, as connect(2) does.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
    except BaseException:
        connection.close()
        raise
    return connection
