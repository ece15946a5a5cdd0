"""How fast connections are, in proportion to a bandwidth limit: by what comes, or by what the zone's kernel counts."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

LIMIT_BIT_S = 16_000_000
FIRST_BYTES, COUNTED_BYTES = 400_000, 3_200_000
# Frames have headers, which count; a busy machine is slow; and what waited in sockets while it was comes all at once.
LEAST, MOST, FREE = 0.4, 2.0, 2.5
# Frames the old queue held are lost when the limit changes: a time for TCP to send them again. Then the kernel's count
# is held to more: all that a bucket and its queue let through at once are 60 ms of the span.
SETTLING_S, SPAN_S, MOST_BY_COUNT = 0.5, 2.0, 1.25
TCPI_BYTES_ACKED = 120  # offset in struct tcp_info, linux/tcp.h; tcpi_bytes_received comes next


def rate_of(receive: Callable[[], int]) -> float:
    """Bits per second of what comes, the first part of it left out; in proportion to the limit."""
    total, began = 0, 0.0
    while total < FIRST_BYTES + COUNTED_BYTES:
        before = total
        total += receive()
        if before < FIRST_BYTES <= total:
            began, counted_from = time.monotonic(), total
    return (total - counted_from) * 8 / (time.monotonic() - began) / LIMIT_BIT_S


@contextlib.contextmanager
def flowing(source: socket.socket, sink: socket.socket) -> Iterator[None]:
    """A connection that is sent over all the while."""

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                source.sendall(bytes(65536))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        thread.join()


@contextlib.contextmanager
def drained(sink: socket.socket) -> Iterator[None]:
    """A socket that is read all the while, until its connection ends, which the caller sees to."""

    def read() -> None:
        buffer = bytearray(65536)
        with contextlib.suppress(OSError):
            while sink.recv_into(buffer):
                pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def tcp_rate(source: socket.socket, sink: socket.socket) -> float:
    sink.settimeout(20)
    buffer = bytearray(65536)
    with flowing(source, sink):
        return rate_of(lambda: sink.recv_into(buffer))


def rate_at(zone: socket.socket) -> float:
    """Rate over a time, by what the kernel counts at the zone's end, read or not, both ways; in proportion as above."""

    def passed() -> int:
        acked, received = struct.unpack_from(
            "=QQ", zone.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136), TCPI_BYTES_ACKED
        )
        return int(acked + received)

    time.sleep(SETTLING_S)
    began, before = time.monotonic(), passed()
    time.sleep(SPAN_S)
    after = passed()
    return (after - before) * 8 / (time.monotonic() - began) / LIMIT_BIT_S
