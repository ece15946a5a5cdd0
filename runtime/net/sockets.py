"""Sockets of the calling thread's network namespace."""

from __future__ import annotations

import socket

BACKLOG = 128
IP_TRANSPARENT = 19  # linux/in.h; not in Python's socket module
IPV6_TRANSPARENT = 75  # linux/in6.h


def listen(address: str, port: int, *, transparent: bool = False) -> socket.socket:
    """A TCP listener in the calling thread's network namespace; transparent for TPROXY. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent and family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        elif transparent:
            listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def bind_udp(address: str, port: int) -> socket.socket:
    """A UDP socket in the calling thread's network namespace. Raises OSError."""
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound
