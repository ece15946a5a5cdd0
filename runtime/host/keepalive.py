"""Connections whose other machine has vanished without a word end by themselves, within a minute or two."""

from __future__ import annotations

import asyncio
import socket

IDLE_S, INTERVAL_S, PROBES = 30, 10, 6
UNACKNOWLEDGED_MS = 90_000


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Probe an idle TCP connection, and give one up whose data is not acknowledged. Source: tcp(7)."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, IDLE_S),
        (socket.TCP_KEEPINTVL, INTERVAL_S),
        (socket.TCP_KEEPCNT, PROBES),
        (socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
