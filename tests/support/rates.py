"""How fast connections are, in proportion to a bandwidth limit: by what comes, or by what the zone's kernel counts."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

LIMIT_BIT_S = 16_000_000
# Of one by one, each of which is work for this machine: a busy one can do as many as are to pass without a limit.
SLOW_BIT_S = LIMIT_BIT_S // 4
FIRST_S, COUNTED_S = 0.2, 1.6  # of datagrams at the limit
# Frames have headers, which count; a busy machine is slow; and what waited in sockets while it was comes all at once.
LEAST, MOST, FREE = 0.4, 2.0, 2.5
# Frames the old queue held are lost when the limit changes: a time for TCP to send them again. Then the kernel's count
# is held to more: all that a bucket and its queue let through at once are 60 ms of the span.
SETTLING_S, SPAN_S, MOST_BY_COUNT = 0.5, 2.0, 1.25
TRIES = 10
TCPI_BYTES_ACKED = 120  # offset in struct tcp_info, linux/tcp.h; tcpi_bytes_received comes next


def assert_rate(measure: Callable[[], float], least: float, most: float = math.inf) -> None:
    """Never above `most`, and above `least` at least once: a machine that has no time does not make it a limit's."""
    rates: list[float] = []
    while not rates or rates[-1] <= least:
        assert len(rates) < TRIES, f"{rates}, of which none is above {least}"
        rates.append(measure())
        assert rates[-1] < most, rates


def rate_of(receive: Callable[[], int], limit_bit_s: int) -> float:
    """Bits per second of what comes, the first part of it left out; in proportion to the limit."""
    total, began = 0, 0.0
    first, whole = (int(limit_bit_s / 8 * seconds) for seconds in (FIRST_S, FIRST_S + COUNTED_S))
    while total < whole:
        before = total
        total += receive()
        if before < first <= total:
            began, counted_from = time.monotonic(), total
    return (total - counted_from) * 8 / (time.monotonic() - began) / limit_bit_s


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


def tcp_rate(zone: socket.socket, far: socket.socket, *, upward: bool) -> float:
    """`rate_at` of a connection, given both its ends, that is sent over as fast as it can be."""
    source, sink = (zone, far) if upward else (far, zone)
    with drained(sink), flowing(source, sink):
        return rate_at(zone)
