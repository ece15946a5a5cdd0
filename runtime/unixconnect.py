"""Unix sockets whose server has no room for one more client just now."""

from __future__ import annotations

import socket
import struct
import time

_SHORTEST_S = 0.001  # 0 would be not to wait, or to wait for ever


def connect(client: socket.socket, address: str, timeout_s: float) -> None:
    """Connect, where need be once there is room in the backlog; what is left of the time is the socket's timeout then.

    A socket with a timeout of Python's does not block, and is refused at once (connect(2), EAGAIN).
    Raises:  OSError, as connect(2) does; TimeoutError.
    """
    deadline = time.monotonic() + timeout_s
    microseconds = int(max(timeout_s, _SHORTEST_S) * 1_000_000)
    timeval = struct.pack("ll", *divmod(microseconds, 1_000_000))  # socket(7), SO_SNDTIMEO
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    try:
        client.connect(address)
    except BlockingIOError:
        raise TimeoutError(f"no room for one more client within {timeout_s:g} s") from None
    client.settimeout(max(deadline - time.monotonic(), _SHORTEST_S))
