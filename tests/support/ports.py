"""Ports nobody uses."""

from __future__ import annotations

import random
import socket

# Below 32768: from there on the kernel gives ports to whoever asks for any (net.ipv4.ip_local_port_range), and a client
# of another test would have the port before the server that it is for.
CHOICE = range(10_000, 32_768)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago, and that the kernel gives to nobody by itself."""
    while True:
        port = random.choice(CHOICE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
