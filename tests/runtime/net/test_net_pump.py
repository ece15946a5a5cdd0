"""The pump on loopback: exact bytes whoever is slow, ends and resets passed on, pipes given back, no idle turns."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

import pytest
from support.networld import wait_until
from support.pumping import Nothing, Pumped, in_background, pumping, read_all, send_all

from runtime.net.engine.loop import EDGE, READ, Loop
from runtime.net.engine.model import Limits
from runtime.net.engine.pipes import SIZE_BYTES, PipePool
from runtime.net.engine.placement import Placement
from runtime.net.engine.pump import SHORT_BYTES, Way
from runtime.net.engine.queues import Queues
from runtime.net.engine.relay import reset

CHUNK = Limits().chunk_bytes
BUFFER = 65536
STREAM = random.Random(7).randbytes(6_000_011)


@pytest.fixture
def pumped() -> Iterator[Pumped]:
    with pumping(PipePool(4)) as made:
        yield made


@pytest.mark.parametrize("most", [0, 1, 4])
def test_slow_readers_on_both_sides_get_exactly_what_was_sent(most: int) -> None:
    with pumping(PipePool(most)) as pumped:
        pairs = [pumped.connect(client=BUFFER // 4, server=BUFFER) for _ in range(3)]
        pumped.run()
        got: dict[socket.socket, bytes] = {}
        threads = []
        for number, ends in enumerate(pairs):
            for end in ends:
                threads.append(in_background(lambda end=end: send_all(end, STREAM)))
                threads.append(
                    in_background(
                        lambda end=end, number=number: got.update({end: read_all(end, slowly=True, seed=number)})
                    )
                )
        for thread in threads:
            thread.join()
        digest = hashlib.sha256(STREAM).digest()
        assert [hashlib.sha256(data).digest() for data in got.values()] == [digest] * 6
        wait_until(pumped.settled)
        assert [relay.sent_bytes for relay in pumped.relays] == [(len(STREAM), len(STREAM))] * 3
        assert min(most, 1) <= pumped.pool.made <= most, "streams are spliced where there are pipes"
        assert pumped.loop.faults == 0


SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, SIZE_BYTES, SIZE_BYTES + CHUNK, 3 * SIZE_BYTES + 1]


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("size_bytes", SIZES)
def test_half_close_comes_after_the_last_byte_and_leaves_the_other_way_open(
    pumped: Pumped, size_bytes: int, upwards: bool
) -> None:
    client, server = pumped.connect()
    pumped.run()
    first, second = (client, server) if upwards else (server, client)
    sender = in_background(lambda: send_all(first, STREAM[:size_bytes]))
    assert read_all(second) == STREAM[:size_bytes]
    sender.join()
    assert pumped.ended == []
    sender = in_background(lambda: send_all(second, STREAM[-size_bytes:]))
    assert read_all(first) == STREAM[-size_bytes:]
    sender.join()
    wait_until(pumped.settled)
    assert pumped.ended == [True]


def test_all_that_was_there_before_the_relay_connected_is_passed_on(pumped: Pumped) -> None:
    client, server = pumped.connect()
    send_all(client, b"question")
    send_all(server, b"greeting")
    pumped.run()
    assert (read_all(server), read_all(client)) == (b"question", b"greeting")


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("most", [0, 4])
def test_stream_goes_on_past_urgent_data_and_ends_after_its_last_byte(most: int, upwards: bool) -> None:
    """Which is not in the stream itself: it is for whoever asks for it."""
    with pumping(PipePool(most)) as pumped:
        client, server = pumped.connect()
        pumped.run()
        first, second = (client, server) if upwards else (server, client)

        def send() -> None:
            first.sendall(STREAM[:SIZE_BYTES])
            first.send(b"!", socket.MSG_OOB)
            send_all(first, STREAM[SIZE_BYTES:])

        sender = in_background(send)
        got = read_all(second)
        sender.join()
        assert (len(got), got == STREAM) == (len(STREAM), True)
        assert pumped.ended == []


def test_what_stands_behind_urgent_data_is_passed_on_though_no_more_comes(pumped: Pumped) -> None:
    client, server = pumped.connect()
    client.sendall(b"before")
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"behind")
    pumped.run()
    got = b""
    while len(got) < 12:
        got += server.recv(12)
    assert got == b"beforebehind"


def segments_in(connection: socket.socket) -> int:
    """What a connection has got so far, bare ones among them: tcpi_segs_in of struct tcp_info, linux/tcp.h."""
    return struct.unpack_from("=I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144), 140)[0]


@pytest.mark.parametrize("upwards", [True, False])
def test_end_right_behind_the_last_bytes_is_passed_on_in_one_segment_with_them(pumped: Pumped, upwards: bool) -> None:
    client, server = pumped.connect()
    first, second = (client, server) if upwards else (server, client)
    send_all(first, b"answer")
    before = segments_in(second)
    pumped.run()
    assert read_all(second) == b"answer"
    assert segments_in(second) == before + 1


def test_reset_right_behind_the_last_bytes_comes_after_them_and_is_no_end(pumped: Pumped) -> None:
    client, server = pumped.connect()
    client.sendall(b"half an answer")
    reset(client)
    pumped.run()
    got = b""
    with pytest.raises(ConnectionResetError):
        while piece := server.recv(20):
            got += piece
    assert got == b"half an answer"
    wait_until(pumped.settled)


@pytest.mark.parametrize("upwards", [True, False])
def test_reset_is_passed_on(pumped: Pumped, upwards: bool) -> None:
    client, server = pumped.connect()
    pumped.run()
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    first, second = (client, server) if upwards else (server, client)
    reset(first)
    with pytest.raises(ConnectionResetError):
        second.recv(1)
    wait_until(pumped.settled)


@pytest.mark.parametrize("upwards", [True, False])
def test_reset_after_a_half_close_is_passed_on_though_nothing_comes_the_other_way(
    pumped: Pumped, upwards: bool
) -> None:
    client, server = pumped.connect()
    pumped.run()
    first, second = (client, server) if upwards else (server, client)
    send_all(first, b"question")
    assert read_all(second) == b"question"
    told = select.poll()
    told.register(second, 0)
    assert told.poll(0) == [] == pumped.ended
    reset(first)
    assert [mask & select.POLLERR for _, mask in told.poll(60_000)] == [select.POLLERR]
    wait_until(pumped.settled)


def test_reset_in_the_midst_of_a_stream_reaches_the_sender_and_costs_a_pipe_of_rests(pumped: Pumped) -> None:
    client, server = pumped.connect(server=BUFFER, far=BUFFER)
    pumped.run()
    _fill_up(pumped, client)
    assert (pumped.pool.made, pumped.pool.free) == (1, 0), "what the server does not take is in a pipe"
    sent, _ = pumped.relays[0].sent_bytes
    assert sent < len(STREAM)
    reset(server)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while True:
            client.sendall(bytes(CHUNK))
    wait_until(pumped.settled)
    assert pumped.pool.made == 0, "a pipe with bytes of another connection must not be used again"
    assert pumped.relays[0].sent_bytes[0] == sent


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("ended", [True, False], ids=["half-closed", "open"])
def test_reset_is_passed_on_though_its_sink_stands_still(pumped: Pumped, upwards: bool, ended: bool) -> None:
    client, server = pumped.connect(server=BUFFER, far=BUFFER, client=BUFFER, near=BUFFER)
    pumped.run()
    first, second = (client, server) if upwards else (server, client)
    _fill_up(pumped, first)
    if ended:
        first.shutdown(socket.SHUT_WR)
    told = select.poll()
    told.register(second, 0)
    assert told.poll(0) == [] == pumped.ended
    reset(first)
    assert [mask & select.POLLERR for _, mask in told.poll(60_000)] == [select.POLLERR]
    wait_until(pumped.settled)


def test_hang_up_with_both_ways_ended_is_no_reset_of_what_its_sink_has_yet_to_take(pumped: Pumped) -> None:
    client, server = pumped.connect(server=BUFFER, far=BUFFER)
    pumped.run()
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    sent = _fill_up(pumped, client)
    client.shutdown(socket.SHUT_WR)
    assert len(read_all(server)) == sent
    wait_until(pumped.settled)


def _fill_up(pumped: Pumped, client: socket.socket) -> int:
    """Send until nothing more goes, and nothing is moved any more; how much went."""
    sent, turns = 0, -1
    client.settimeout(0.15)
    while turns != pumped.loop.turns or not pumped.rests():
        turns = pumped.loop.turns
        with suppress(TimeoutError):
            while True:
                sent += client.send(STREAM[: 4 * CHUNK])
    client.settimeout(60)
    return sent


def test_stream_without_a_pipe_is_copied_while_another_has_the_only_one() -> None:
    with pumping(PipePool(1)) as pumped:
        stuck, stuck_server = pumped.connect(server=BUFFER, far=BUFFER)
        client, server = pumped.connect()
        pumped.run()
        sent = _fill_up(pumped, stuck)
        assert (pumped.pool.made, pumped.pool.free) == (1, 0)
        in_background(lambda: send_all(client, STREAM))
        assert read_all(server) == STREAM
        stuck.shutdown(socket.SHUT_WR)
        assert len(read_all(stuck_server)) == sent
        wait_until(lambda: pumped.pool.free == 1)


def test_idle_connections_have_no_pipe(pumped: Pumped) -> None:
    pairs = [pumped.connect() for _ in range(12)]
    pumped.run()
    for client, server in pairs:
        sender = in_background(lambda client=client: client.sendall(STREAM[:SIZE_BYTES]))
        left = SIZE_BYTES
        while left:
            left -= len(server.recv(left))
        sender.join()
    assert 1 <= pumped.pool.made <= 4
    wait_until(lambda: pumped.pool.free == pumped.pool.made)
    assert pumped.ended == []


def test_reader_that_stands_still_costs_no_turn(pumped: Pumped) -> None:
    client, server = pumped.connect(server=BUFFER, far=BUFFER)
    pumped.run()
    sent = _fill_up(pumped, client)
    before = pumped.loop.turns
    time.sleep(0.5)
    assert pumped.loop.turns - before <= 2
    client.shutdown(socket.SHUT_WR)
    assert len(read_all(server)) == sent


def test_turns_are_few_for_a_stream_and_for_a_message(pumped: Pumped) -> None:
    client, server = pumped.connect()
    pumped.run()
    for _ in range(50):
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        server.sendall(b"y")
        assert client.recv(1) == b"y"
    # One a message, and one where an acknowledgement is news, too.
    assert 100 <= pumped.loop.turns <= 210
    pumped.loop.turns = 0
    in_background(lambda: send_all(client, STREAM))
    assert read_all(server) == STREAM
    assert pumped.loop.turns <= len(STREAM) // CHUNK


class Endless(socket.socket):
    """A source that never runs dry, and a sink that takes all."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        return bytes(size)

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        return len(data)


def test_stream_that_never_runs_dry_lets_others_have_their_turn() -> None:
    with Endless() as endless:
        way = Way(endless, endless, PipePool(0), CHUNK, Queues(0))
        assert way.move(), "there is more, of which no event tells"
        assert CHUNK <= way.sent_bytes <= 16 * CHUNK


def test_keepalive_is_asked_for_once_a_connection_lasts(pumped: Pumped) -> None:
    pumped.connect()
    (relay,) = pumped.relays
    relay.ready(relay._far, select.EPOLLOUT)
    connections = (relay._near, relay._far)

    def kept_alive() -> list[int]:
        return [connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for connection in connections]

    assert kept_alive() == [0, 0]
    relay.tick(time.monotonic() + 1)
    assert kept_alive() == [1, 1]


@pytest.mark.parametrize("first", [SHORT_BYTES, SHORT_BYTES + 1])
def test_no_byte_waits_for_others_though_most_connections_ask_but_once(pumped: Pumped, first: int) -> None:
    client, server = pumped.connect()
    (relay,) = pumped.relays
    pumped.run()

    def waits_after(size: int) -> bool:
        client.sendall(bytes(size))
        assert len(server.recv(size, socket.MSG_WAITALL)) == size
        return not relay._far.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert waits_after(first) is (first == SHORT_BYTES), "what fits into one packet is sent, as nothing is under way"
    assert not waits_after(1)


class Place:
    """Notes what a loop says of streams."""

    def __init__(self) -> None:
        self.sources: list[socket.socket] = []

    def streams(self, source: socket.socket, now: float) -> None:
        self.sources.append(source)

    def rest(self, now: float) -> None:
        pass


@pytest.mark.parametrize("upwards", [True, False])
def test_loop_chooses_its_place_by_where_streams_come_in_and_not_by_messages(pumped: Pumped, upwards: bool) -> None:
    place = Place()
    pumped.loop.placement = cast(Placement, place)
    client, server = pumped.connect()
    (relay,) = pumped.relays
    source, sink, inward = (client, server, relay._near) if upwards else (server, client, relay._far)
    pumped.run()
    for _ in range(50):
        source.sendall(bytes(1000))
        sink.recv(1000, socket.MSG_WAITALL)
    assert place.sources == []
    in_background(lambda: send_all(source, STREAM))
    assert read_all(sink) == STREAM
    assert set(place.sources) == {inward}


class Successor(Nothing):
    """Closes another's socket and watches a new one, which gets its number."""

    def __init__(self, loop: Loop, victim: socket.socket) -> None:
        self.loop, self.victim = loop, victim
        self.seen: list[socket.socket] = []
        self.made: list[socket.socket] = []

    def ready(self, source: socket.socket, mask: int) -> None:
        if self.made:
            self.seen.append(source)
            self.loop.stop()
            return
        number = self.victim.fileno()
        self.loop.forget(self.victim)
        self.victim.close()
        self.made = list(socket.socketpair())
        assert self.made[0].fileno() == number
        self.loop.watch(self.made[0], self, READ | EDGE)
        timer = threading.Timer(0.1, lambda: self.made[1].send(b"x"))
        timer.start()


def test_news_of_a_closed_socket_are_not_taken_for_those_of_the_next_with_its_number() -> None:
    loop = Loop()
    first, first_peer = socket.socketpair()
    second, second_peer = socket.socketpair()
    with first, first_peer, second, second_peer:
        successor = Successor(loop, second)
        loop.watch(first, successor, READ | EDGE)
        loop.watch(second, successor, READ | EDGE)
        first_peer.send(b"x")
        second_peer.send(b"x")
        started = time.monotonic()
        loop.run()
        assert successor.seen == [successor.made[0]]
        assert time.monotonic() - started > 0.09, "told before anything came"
        for connection in successor.made:
            connection.close()
