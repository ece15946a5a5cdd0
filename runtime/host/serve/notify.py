"""Tells systemd how zoned is doing, where systemd has started it. Source: sd_notify(3), "Notes"."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send a state such as READY=1; nothing without $NOTIFY_SOCKET."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect("\0" + path[1:] if path.startswith("@") else path)
            sender.send(state.encode())
