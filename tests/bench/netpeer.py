"""Both ends of the small loads: `netpeer.py serve ADDRESS PORT`, `trips|opens|hold|knock ADDRESS PORT NUMBER SECONDS`.

A whole process for each, so that neither shares Python's lock with the other. A server says "ready" when it listens; a
client says one line of JSON. The server sends back what comes, by TCP or UDP; a byte "q" ends a connection.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import statistics
import sys
import time

ASK, LAST = b"x", b"q"
_BACKLOG = 1024
_TIMEOUT_S = 5.0


def serve(address: str, port: int) -> None:
    """Echo until killed; one loop, so that a thousand connections cost little."""
    listener = socket.create_server((address, port), backlog=_BACKLOG, reuse_port=True)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, port))
    poll, open_now = select.epoll(), dict[int, socket.socket]()
    for source in (listener, datagrams):
        source.setblocking(False)
        poll.register(source, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                _accept_all(listener, poll, open_now)
            elif fd == datagrams.fileno():
                with contextlib.suppress(OSError):
                    datagrams.sendto(*datagrams.recvfrom(4096))
            elif not _echo(open_now[fd]):
                open_now.pop(fd).close()


def _accept_all(listener: socket.socket, poll: select.epoll, open_now: dict[int, socket.socket]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        open_now[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)


def _echo(connection: socket.socket) -> bool:
    """Send back what came; False when the connection is to end."""
    try:
        data = connection.recv(4096)
        connection.sendall(data)
    except OSError:
        return False
    return bool(data) and data[-1:] != LAST


def trips(address: str, port: int, number: int, seconds: float) -> dict[str, float]:
    """Microseconds of a one-byte question and answer on one connection, median and 99th percentile."""
    taken, end = list[float](), time.perf_counter() + seconds
    with socket.create_connection((address, port), _TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)  # a timeout would cost a poll() before each call
        while len(taken) < number and time.perf_counter() < end:
            start = time.perf_counter()
            connection.send(ASK)
            connection.recv(1)
            taken.append((time.perf_counter() - start) * 1e6)
    taken.sort()
    return {"p50_us": statistics.median(taken), "p99_us": taken[len(taken) * 99 // 100]}


def opens(address: str, port: int, number: int, seconds: float) -> dict[str, float]:
    """Connections per second, `number` at a time: each is opened, asks, is answered and closed by the server."""
    poll, open_now = select.epoll(), dict[int, socket.socket]()
    done = failed = 0
    start = time.perf_counter()
    end = start + seconds
    for _ in range(number):
        _open(address, port, poll, open_now)
    while open_now and time.perf_counter() < end + _TIMEOUT_S:
        for fd, mask in poll.poll(_TIMEOUT_S):
            connection = open_now[fd]
            try:
                if mask & select.EPOLLOUT:
                    connection.send(LAST)
                    poll.modify(fd, select.EPOLLIN)
                    continue
                if connection.recv(1):
                    done += time.perf_counter() < end
                    continue  # then its end
            except OSError:
                failed += 1
            del open_now[fd]
            connection.close()
            if time.perf_counter() < end:
                _open(address, port, poll, open_now)
    return {"per_s": done / seconds, "failed": failed + len(open_now)}


def _open(address: str, port: int, poll: select.epoll, open_now: dict[int, socket.socket]) -> None:
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    connection.connect_ex((address, port))
    open_now[connection.fileno()] = connection
    poll.register(connection, select.EPOLLOUT)


def hold(address: str, port: int, number: int, seconds: float) -> dict[str, float]:
    """Open that many connections, one answer through each, then leave them idle until standard input ends."""
    held = [socket.create_connection((address, port), _TIMEOUT_S) for _ in range(number)]
    answered = 0
    for connection in held:
        connection.send(ASK)
        answered += connection.recv(1) == ASK
    print(json.dumps({"answered": answered}), flush=True)
    sys.stdin.read()
    return {"closed": len(held)}


def knock(address: str, port: int, number: int, seconds: float) -> dict[str, float]:
    """How many of so many datagrams, one after the other, are answered in time."""
    answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(seconds)
        client.connect((address, port))
        for _ in range(number):
            with contextlib.suppress(OSError):
                client.send(ASK)
                answered += client.recv(1) == ASK
    return {"answered": answered}


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    role, host, number_of_port, *rest = sys.argv[1:]
    if role == "serve":
        serve(host, int(number_of_port))
    load = {"trips": trips, "opens": opens, "hold": hold, "knock": knock}[role]
    print(json.dumps(load(host, int(number_of_port), int(rest[0]), float(rest[1]))), flush=True)
