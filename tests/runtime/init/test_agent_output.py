"""What the agent keeps of a container's output, and what it forgets when the host acknowledges."""

import os
import pty
import select
import tty
from types import SimpleNamespace

import pytest
from support import containers

from runtime.init.agent import pipes
from runtime.init.agent.errors import Refused
from runtime.init.agent.logs import Logs, Reader
from runtime.init.agent.loop import Loop
from runtime.init.agent.output import LIMIT_BYTES, Output, Ring
from runtime.init.agent.pipes import Source


class Clock:
    """A loop in which, after each step, a timer that is due comes first, and else the descriptor has become ready."""

    def __init__(self, monkeypatch, step_s):
        self.now_s, self._step_s, self._handler, self._timers = 0.0, step_s, None, {}
        monkeypatch.setattr(pipes, "time", SimpleNamespace(monotonic=lambda: self.now_s), raising=False)

    def watch(self, fd, events, handler):
        self._handler = handler

    def forget(self, fd):
        self._handler = None

    def after(self, seconds, action):
        self._timers[len(self._timers)] = (self.now_s + seconds, action)
        return len(self._timers) - 1

    def cancel(self, timer):
        if timer is not None:
            self._timers[timer] = (float("inf"), None)

    def turn(self, become_ready):
        self.now_s += self._step_s
        due = [action for when_s, action in self._timers.values() if when_s <= self.now_s]
        if not due:
            become_ready()
        for action in due or [self._handler]:
            action()


class Pipe:
    """A source with bytes at hand: pieces, then None (nothing now) or b"" (the end)."""

    def __init__(self, *pieces):
        self.pieces, self.wake = list(pieces), None

    def take(self, limit):
        if not self.pieces:
            return None
        piece = self.pieces.pop(0)
        if len(piece) > limit:
            self.pieces.insert(0, piece[limit:])
        return piece[:limit]

    def later(self):
        self.again = True

    def drain(self):
        self.pieces.append(b"")
        self.wake()


def output(lossless=True):
    waits = []
    made = Output(lambda: lossless, lambda: waits.append(1))
    return made, waits


def test_a_ring_keeps_offsets_while_its_oldest_bytes_go():
    ring = Ring(10)
    ring.add(b"0123456789")
    ring.add(b"abc")
    assert (ring.start, ring.end, ring.room) == (3, 13, 0)
    assert ring.read(3, 4) == b"3456" and ring.read(12, 9) == b"c" and ring.read(13, 9) == b""
    ring.release(5)
    assert (ring.start, ring.end, ring.room) == (5, 13, 2)
    ring.release(4)
    ring.release(99)
    assert (ring.start, ring.end) == (13, 13)


def test_a_full_ring_makes_the_workload_wait_until_the_host_has_stored_something():
    made, waits = output()
    pipe = Pipe(bytes(LIMIT_BYTES), b"rest")
    made.attach(pipe)
    while made.ring.room:
        made.pump()
    made.pump()
    assert waits and pipe.pieces == [b"rest"] and made.ring.end == LIMIT_BYTES
    made.release(2)
    assert made.ring.end == LIMIT_BYTES + 2 and pipe.pieces == [b"st"]


def test_without_a_host_the_oldest_bytes_go():
    made, waits = output(lossless=False)
    made.attach(Pipe(bytes(LIMIT_BYTES), b"x" * 100))
    for _ in range(40):
        made.pump()
    assert not waits and made.ring.start == 100 and made.ring.end == LIMIT_BYTES + 100


def test_an_endless_writer_leaves_others_their_turn():
    made, _ = output(lossless=False)
    pipe = Pipe(*[bytes(65536)] * 1000)
    made.attach(pipe)
    assert len(pipe.pieces) > 900 and pipe.again


def test_a_started_again_container_goes_on_with_its_offsets():
    made, _ = output()
    first = Pipe(b"one")
    made.attach(first)
    made.drain()
    assert made.ended and made.ring.end == 3
    made.attach(Pipe(b"two"))
    assert not made.ended and made.ring.read(0, 9) == b"onetwo"


def test_a_container_started_again_before_its_output_was_taken_loses_nothing_of_either_run():
    made, _ = output()
    made.ring = Ring(8)
    made.attach(Pipe(b"8 bytes.", b"last "))
    made.drain()
    assert not made.ended
    made.attach(Pipe(b"two"))
    made.drain()
    made.release(8)
    assert made.ring.read(8, 9) == b"last two" and not made.ended
    made.release(16)
    assert made.ended


def test_the_end_is_seen_after_a_turn_too_though_somebody_holds_the_pipe(monkeypatch):
    containers.zsys()
    monkeypatch.setattr("runtime.init.agent.output._READ_BYTES", 1)
    loop, (reader, writer) = Loop(), os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"8 bytes.")
    made, _ = output()
    made.attach(Source(loop, reader))
    made.drain()
    assert made.ring.end == 8 and not made.ended
    loop.after(0, lambda: setattr(loop, "stopped", True))
    loop.run()
    assert made.ended
    os.close(writer)


def test_what_others_write_behind_the_end_of_a_process_is_not_waited_for():
    """A child of an exec that writes without end would keep that from ever having its result."""
    containers.zsys()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, b"before")
    source = Source(Loop(), reader)
    source.drain()
    os.write(writer, b"after")
    taken = []
    while len(taken) < 9 and (piece := source.take(4)):
        taken.append(piece)
        os.write(writer, b"more")
        source.drain()
    assert taken == [b"befo", b"re"] and source.take(4) == b""
    os.close(writer)


def test_a_reader_forgets_what_is_acknowledged_and_nothing_else():
    made, _ = output()
    made.attach(Pipe(b"0123456789"))
    reader = Reader(1, made, 2)
    assert made.ring.start == 2
    assert reader.take(4) == b"2345" and reader.take(9) == b"6789" and reader.take(9) is None
    reader.acknowledged(3)
    assert made.ring.start == 5 and not reader.stored
    made.drain()
    assert reader.take(9) == b"" and not reader.stored
    reader.acknowledged(5)
    assert reader.stored and made.ring.start == 10


def test_a_gap_is_counted_and_credit_for_what_went_before_still_counts():
    made, _ = output(lossless=False)
    pipe = Pipe(b"a" * 1000)
    made.attach(pipe)
    reader = Reader(1, made, 0)
    assert reader.take(600) == b"a" * 600
    pipe.pieces = [bytes(LIMIT_BYTES)]
    while pipe.pieces:
        made.pump()
    assert made.ring.start == 1000
    assert reader.take(4) == bytes(4) and reader.gap == 400
    reader.acknowledged(600)
    assert made.ring.start == 1000
    reader.acknowledged(4)
    assert made.ring.start == 1004


def test_an_offset_from_the_future_is_refused():
    made, _ = output()
    made.attach(Pipe(b"abc"))
    with pytest.raises(Refused, match="at most 3, got 4"):
        Reader(1, made, 4)


def test_a_stream_of_output_ends_though_its_container_is_started_again_before_all_is_stored():
    made, _ = output()
    pipe = Pipe(b"first")
    made.attach(pipe)
    results, outlets = [], []

    def outlet(fd, take):
        outlets.append(SimpleNamespace(take=take, ended=False, done=None, wake=lambda: None))
        return outlets[-1]

    stream = SimpleNamespace(outlet=outlet, succeed=results.append)
    logs = Logs(stream, SimpleNamespace(outputs={1: made}, ended=[]), {})
    pipe.drain()
    assert (outlets[0].take(100), outlets[0].take(100)) == (b"first", b"")
    outlets[0].ended = True
    outlets[0].done()
    assert results == []
    made.attach(Pipe(b"second"))
    logs.credit(1, 5)
    assert results == [{}] and made.ring.read(5, 100) == b"second"


@pytest.mark.parametrize(("piece", "step_s"), [(b"x", 0.05), (bytes(4000), 0.0)])
def test_what_others_write_to_a_terminal_behind_the_end_of_its_process_is_not_waited_for(piece, step_s, monkeypatch):
    """Who has opened it again writes now and then, or without end, and an exec on it would have no result."""
    containers.zsys()
    clock, (master, slave) = Clock(monkeypatch, step_s), pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)

    def write(data=piece):
        os.write(slave, data)
        select.select([master], [], [])

    write(b"last words")
    source, taken = Source(clock, master, terminal=True), []
    source.drain()
    while len(taken) < 500 and (data := source.take(65536)) != b"":
        if data is None:
            clock.turn(write)
        else:
            taken.append(data)
            if not step_s:
                write()
    assert len(taken) < 500 and taken[0] == b"last words"
    os.close(slave)
