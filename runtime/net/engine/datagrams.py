"""What waits in a datagram or raw socket, with what the kernel says of it: where it was meant to go, its hops left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

IP_PKTINFO, IP_ORIGDSTADDR = 8, 20  # linux/in.h; not all of them in Python's socket module
IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_ORIGDSTADDR = 49, 50, 74  # linux/in6.h
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
LARGEST = 65535
_ANCILLARY_BYTES = 256

Ancillary = dict[tuple[int, int], bytes]  # by level and kind


def datagrams(source: socket.socket, most: int) -> Iterator[tuple[bytes, Ancillary, Any]]:
    """The next datagrams of a socket that does not block, at most so many: data, what comes with it, who sent it."""
    for _ in range(most):
        try:
            data, ancillary, _, sender = source.recvmsg(LARGEST, _ANCILLARY_BYTES)
        except OSError:
            return
        yield data, {(level, kind): value for level, kind, value in ancillary}, sender


def push(sink: socket.socket, data: bytes | memoryview) -> None:
    """Send a datagram on a connected socket.

    Raises:  OSError, about this datagram: what the kernel keeps about one before (the other side's ICMP) it says in the
             place of the next call's result, and sends nothing then. Source: ip(7), IP_RECVERR; udp(7).
    """
    try:
        sink.send(data)
    except BlockingIOError:
        raise
    except OSError:
        sink.send(data)


def hops_of(ancillary: Ancillary) -> int | None:
    """How many hops a datagram had left; None where the kernel was not asked."""
    for asked in ((socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)):
        if asked in ancillary:
            return int.from_bytes(ancillary[asked][:4], "little")
    return None
