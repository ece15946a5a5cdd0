"""Relays on loopback, and both ends of each."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.net.engine.loop import READ, Handler, Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.pipes import PipePool
from runtime.net.engine.relay import Relay, Target


class CountingLoop(Loop):
    """Counts what it calls handlers for."""

    turns = 0

    def _guard(self, handler: Handler, source: socket.socket, mask: int) -> None:
        self.turns += 1
        super()._guard(handler, source, mask)


class Pumped:
    """Relays on loopback in a loop of their own thread."""

    def __init__(self, stack: ExitStack, pool: PipePool) -> None:
        self.pool, self.loop = pool, CountingLoop(pool)
        self.relays: list[Relay] = []
        self.ended: list[bool] = []
        self._stack = stack
        self._listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        self._thread = threading.Thread(target=self.loop.run, daemon=True)

    def connect(self, **buffers: int) -> tuple[socket.socket, socket.socket]:
        """The two ends of a relayed connection, before `run`. buffers: client, near, far, server."""

        def sized(name: str, connection: socket.socket) -> socket.socket:
            if name in buffers:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers[name])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers[name])
            return connection

        inner, outer = self._listeners
        client = self._stack.enter_context(sized("client", socket.socket()))
        client.connect(inner.getsockname())
        near = sized("near", inner.accept()[0])
        target = Target(
            socket.AF_INET, outer.getsockname(), lambda family, kind: sized("far", socket.socket(family, kind))
        )
        relay = Relay(self.loop, Limits(), near, [target], lambda _, connected: self.ended.append(connected))
        self.relays.append(relay)
        relay.start()
        server = self._stack.enter_context(sized("server", outer.accept()[0]))
        for connection in (client, server):
            connection.settimeout(60)
        return client, server

    def run(self) -> None:
        """Start pumping."""
        self._thread.start()

    def stop(self) -> None:
        """Stop pumping, end what still runs."""
        if self._thread.ident is not None and self._thread.is_alive():
            self.loop.stop()
            woken, waker = socket.socketpair()
            with woken, waker:
                self.loop.watch(woken, Nothing(), READ)
                waker.send(b"x")
                self._thread.join(10)
                assert not self._thread.is_alive()
                self.loop.forget(woken)
        for relay in self.relays:
            relay.abort()

    def rests(self) -> bool:
        """Does the loop's thread wait, for what has not come? One that has not got its turn of the processor runs."""
        stat = Path(f"/proc/self/task/{self._thread.native_id}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "S"

    def settled(self) -> bool:
        """Have all connections ended, and given back their pipes?"""
        return len(self.ended) == len(self.relays) and self.pool.free == self.pool.made


class Nothing:
    """A handler that does nothing."""

    def ready(self, source: socket.socket, mask: int) -> None:
        pass

    def tick(self, now: float) -> None:
        pass

    def abort(self) -> None:
        pass


@contextmanager
def pumping(pool: PipePool) -> Iterator[Pumped]:
    """Relays that are ended with the block, and the pool with them."""
    with ExitStack() as stack:
        made = Pumped(stack, pool)
        stack.callback(pool.close)
        stack.callback(made.stop)
        yield made


def in_background(work: Callable[[], object]) -> threading.Thread:
    """Work of a thread of its own, which has begun."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def read_all(connection: socket.socket, *, slowly: bool = False, seed: int = 1) -> bytes:
    """All that comes; slowly: in pieces of odd sizes, with rests in which the buffers fill up."""
    sizes, parts = random.Random(seed), []
    while data := connection.recv(sizes.randrange(1, 200_000)):
        parts.append(data)
        if slowly and sizes.random() < 0.15:
            time.sleep(0.004)
    return b"".join(parts)


def send_all(connection: socket.socket, data: bytes) -> None:
    """Everything, and the end behind it."""
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
