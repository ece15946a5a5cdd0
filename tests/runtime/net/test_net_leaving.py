"""Connections that both ends have ended, while somebody has yet to take what was sent: they count until then.

Closed before, each would be the kernel's alone, with megabytes in its queues, for minutes.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from support.networld import OUTSIDE4, OUTSIDE6, World, receive_all

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.dns import Resolvers
from runtime.net.engine.dnsstream import StreamServer, framed
from runtime.net.engine.loop import Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.names import Names
from runtime.net.engine.relay import Relay, Target

FEW = 4096  # as a length for a queue: the kernel makes it the least there is
DATA = bytes(range(256)) * 600


def pair(stack: contextlib.ExitStack, *, taken_by: int) -> tuple[socket.socket, socket.socket]:
    """A connection on loopback: who began it, who accepted it. taken_by: a length for the first one's queue."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    began = stack.enter_context(socket.socket())
    if taken_by:
        began.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, taken_by)
    began.settimeout(20)
    began.connect(listener.getsockname())
    accepted = stack.enter_context(listener.accept()[0])
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return began, accepted


class Leaving:
    """A relay of which `reader` has ended its own way and takes little, and `writer` has sent DATA and its end."""

    def __init__(self, stack: contextlib.ExitStack, *, upwards: bool) -> None:
        self.loop, self.ended = Loop(), list[bool]()
        lengths = (0, FEW) if upwards else (FEW, 0)
        (client, near), (server, far) = (pair(stack, taken_by=length) for length in lengths)
        far.setblocking(False)
        target = Target(socket.AF_INET, far.getsockname(), lambda family, kind: far, connected=True)
        self.relay = Relay(self.loop, Limits(), near, [target], lambda _, connected: self.ended.append(connected))
        stack.callback(self.relay.abort)
        self.relay.start()
        self.writer, self.reader = (client, server) if upwards else (server, client)
        self.reader.shutdown(socket.SHUT_WR)
        sending = threading.Thread(target=self._write, daemon=True)
        sending.start()
        while sending.is_alive() or not all(way.eof for way in self.relay._ways or ()):
            self.loop._serve(self.loop._epoll.poll(0.05, 64))
        self.turn()

    def _write(self) -> None:
        self.writer.sendall(DATA)
        self.writer.shutdown(socket.SHUT_WR)

    def turn(self, later_s: float = 0.0) -> None:
        """What there is to do, and the deadlines."""
        self.loop._serve(self.loop._epoll.poll(0, 64))
        for each in list(self.loop.urgent | self.loop.patient):
            each.tick(time.monotonic() + later_s)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


@pytest.mark.parametrize("upwards", [True, False])
def test_relay_lasts_until_what_was_sent_has_been_taken(stack: contextlib.ExitStack, upwards: bool) -> None:
    made = Leaving(stack, upwards=upwards)
    assert receive_all(made.writer) == b""
    assert made.ended == [], "the reader has yet to read"
    assert receive_all(made.reader) == DATA, "all of it, and its end"
    made.turn()
    assert made.ended == [True] and not made.loop.urgent and not made.loop.patient


@pytest.mark.parametrize("upwards", [True, False])
def test_relay_whose_reader_never_reads_ends_as_any_other_that_is_idle(
    stack: contextlib.ExitStack, upwards: bool
) -> None:
    made = Leaving(stack, upwards=upwards)
    made.turn(later_s=Limits().idle_timeout_s - 60)
    assert made.ended == []
    made.turn(later_s=Limits().idle_timeout_s + 60)
    with pytest.raises(ConnectionResetError):
        receive_all(made.reader)
    assert made.ended == [True]


@pytest.mark.parametrize("upwards", [True, False])
def test_relay_whose_reader_resets_it_is_over(stack: contextlib.ExitStack, upwards: bool) -> None:
    made = Leaving(stack, upwards=upwards)
    made.reader.close()  # with bytes that nobody has read, and so by a reset: tcp_close
    made.turn()
    assert made.ended == [True]


def test_dns_over_tcp_lasts_until_its_answers_have_been_taken_and_no_longer_than_its_time(
    stack: contextlib.ExitStack,
) -> None:
    loop, names = Loop(), Names(())
    names.add("web", "10.75.9.2", "fd5a:6f6e:6577:9::2")
    server = StreamServer(loop, Traffic(Limits()), Resolvers(()), names)
    asked = framed(struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\3web\0" + struct.pack("!2H", 255, 1))

    def turn(later_s: float = 0.0) -> None:
        loop._serve(loop._epoll.poll(0, 64))
        for each in list(loop.urgent):
            each.tick(time.monotonic() + later_s)

    for read in (True, False):
        client, near = pair(stack, taken_by=FEW)
        server.serve(near)
        asking = threading.Thread(target=client.sendall, args=(asked * 1000,), daemon=True)
        asking.start()
        while asking.is_alive():
            turn()
        client.shutdown(socket.SHUT_WR)
        (stream,) = server.streams
        while not stream._leaving:
            turn()
        turn()
        assert server.streams == {stream}
        if read:
            answers = receive_all(client)
            assert len(answers) == 1000 * (2 + int.from_bytes(answers[:2], "big"))
            turn()
        else:
            turn(later_s=20)
            with pytest.raises(ConnectionResetError):
                receive_all(client)
        assert not server.streams and not loop.urgent


@pytest.mark.root
@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_connections_whose_bytes_nobody_takes_are_within_the_limit(world: World, address: str) -> None:
    most = 8
    size = 30_000
    port = world.serve(world.outside, address, 0, lambda connection: connection.sendall(bytes(size)))
    world.network = world.new_network(limits=Limits(connections=most))
    network = world.up()
    world.meet()
    held = []
    for _ in range(most):
        held.append(world.in_zone(lambda: socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)))
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FEW)
        held[-1].connect((address, port))
        held[-1].shutdown(socket.SHUT_WR)
    world.wait_until(lambda: network.counters()["bytes_down"] == most * size)
    with pytest.raises(ConnectionRefusedError):
        world.connect(address, port)
    counters = network.counters()
    assert (counters["active"], counters["limited"]) == (most, 1)
    for each in held:
        each.close()
    world.wait_until(lambda: network.counters()["active"] == 0)
    world.connect(address, port).close()
