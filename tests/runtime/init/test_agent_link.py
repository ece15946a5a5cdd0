"""The agent's end of the channel on a socket pair: sessions, turns, and whatever a host may send."""

import contextlib
import os
import random
import socket
import time

import pytest
from support.agenthost import AgentError, AgentHost

from runtime.init.agent import link
from runtime.init.agent.dial import Dial
from runtime.init.agent.errors import Refused
from runtime.init.agent.link import Link
from runtime.init.agent.loop import Loop
from runtime.init.agent.stream import Handler
from runtime.init.channel import frames


class Echo(Handler):
    """Sends back what comes."""

    def __init__(self, stream):
        self.stream, self.waiting, self.ended = stream, bytearray(), False
        self.outlet = stream.outlet(1, self.take)
        self.outlet.done = lambda: stream.succeed({})

    def take(self, limit):
        data = bytes(self.waiting[:limit])
        del self.waiting[: len(data)]
        self.stream.consumed(0, len(data))
        return data or (b"" if self.ended else None)

    def data(self, fd, payload):
        self.waiting += payload
        self.outlet.wake()

    def eof(self, fd):
        self.ended = True
        self.outlet.wake()


class Stuck(Handler):
    """Cannot let go of what it held."""

    def closed(self):
        raise OSError("a fault of ours")


class Bench:
    """A link, and a host whose every wait lets the link's loop run first: both in one thread."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.loop, self.closed, self.began = Loop(), [], lambda: None
        self.link = Link(
            self.loop,
            opened=self.opened,
            hello=lambda: [{"much": "x" * 5000}, {"little": True}],
            began=lambda: self.began(),
            ended=lambda: self.closed.append("session"),
            waited=lambda: True,
            silent=lambda: self.closed.append("silent"),
        )
        self.loop.each_time(self.link.pump)
        self.link.start("", ours.detach())
        self.host = AgentHost(theirs.detach())
        self.host.idle = self.turn

    def turn(self):
        self.loop.stopped = False
        self.loop.after(0, lambda: setattr(self.loop, "stopped", True))
        self.loop.run()

    def until(self, condition):
        """The host's own waits for it; what comes from somewhere else is waited for here."""
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            self.host.take(0)

    def opened(self, stream, params):
        if stream.method == "echo":
            stream.handler = Echo(stream)
        elif stream.method == "stuck":
            stream.handler = Stuck()
        elif stream.method == "dial":
            stream.handler = self.dial = Dial(self.loop, stream, "127.0.0.1", params["port"])
        elif stream.method == "refuse":
            raise Refused("params", "no: expected yes, got no")
        elif stream.method == "break":
            raise KeyError("a fault of ours")
        elif stream.method == "big":
            stream.succeed({"text": "x" * params["size"]})
        else:
            stream.succeed(params)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.host.close()
    made.turn()  # the link sees it, and lets go of its own end


def test_the_greeting_says_what_fits(bench):
    assert bench.host.hello()["little"] is True


def test_bytes_come_back_whatever_their_number(bench):
    bench.host.hello()
    stream = bench.host.open("echo")
    sent = random.Random(1).randbytes(1_000_000)
    stream.write(sent)
    stream.eof()
    assert stream.wait() == {} and stream.data[1] == sent


def test_nothing_is_written_without_the_links_credit(bench):
    bench.host.hello()
    bench.host._give = lambda: None
    stream = bench.host.open("big", size=100_000)
    for _ in range(50):
        bench.host.take(0)
    assert stream.result is None and bench.host._parser.taken_bytes <= frames.LINK_WINDOW_BYTES


def test_many_streams_have_their_turns(bench):
    bench.host.hello()
    streams = [bench.host.open("echo") for _ in range(20)]
    for stream in streams:
        stream.write(bytes(60_000))
    bench.host.until(lambda: len(streams[-1].data[1]) > 8192)
    assert all(len(stream.data[1]) < 60_000 for stream in streams[:-1])


@pytest.mark.parametrize(("method", "reason"), [("refuse", "params"), ("break", "internal")])
def test_what_a_method_raises_is_its_result(bench, method, reason):
    bench.host.hello()
    with pytest.raises(AgentError) as caught:
        bench.host.call(method)
    assert caught.value.reason == reason
    assert bench.host.call("other", a=1) == {"a": 1}


def test_results_of_many_frames_arrive_and_too_big_ones_are_said(bench):
    bench.host.hello()
    assert bench.host.call("big", size=500_000) == {"text": "x" * 500_000}
    with pytest.raises(AgentError, match="at most 1048576 bytes"):
        bench.host.call("big", size=2_000_000)


def test_more_bytes_than_credit_end_the_stream_only(bench):
    bench.host.hello()
    stream = bench.host.open("echo")
    stream.hold = True
    for _ in range(3):
        stream.may_send = 65536
        stream.write(bytes(65536))
    with pytest.raises(AgentError) as caught:
        stream.wait()
    assert caught.value.reason == "protocol" and bench.host.call("x") == {}


def test_a_new_hello_ends_the_old_session(bench):
    bench.host.hello()
    old = bench.host.open("echo")
    old.write(b"x")
    bench.host.hello()
    assert bench.closed == ["session"] and not bench.link.streams
    assert bench.host.call("x") == {}


def test_a_stream_that_cannot_let_go_keeps_no_session_from_beginning(bench):
    bench.host.hello()
    bench.host.open("stuck")
    bench.host.call("x")
    assert bench.host.hello()["little"] is True


def test_what_fails_as_a_session_begins_does_not_make_the_link_deaf(bench):
    def fail():
        raise OSError("a fault of ours")

    bench.began = fail
    bench.host.hello()
    assert bench.host.call("x", a=1) == {"a": 1}


def test_what_waits_for_a_service_that_has_said_all_still_reaches_it(bench):
    bench.host.hello()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # of what it accepts, too
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stream = bench.host.open("dial", port=listener.getsockname()[1])
        bench.until(lambda: stream.events == [{"connected": True}])
        bench.dial._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        service, _ = listener.accept()
    with service:
        service.sendall(b"answer")
        service.shutdown(socket.SHUT_WR)
        sent = random.Random(1).randbytes(60_000)  # more than the two buffers, less than the stream's credit
        stream.write(sent)
        stream.eof()
        bench.until(lambda: stream.ended == {1})
        assert stream.data[1] == b"answer" and stream.result is None
        service.setblocking(False)
        got = bytearray()

        def has_ended():
            with contextlib.suppress(BlockingIOError):
                piece = service.recv(65536)
                got.extend(piece)
                return not piece
            return False

        bench.until(has_ended)
        assert got == sent and stream.wait() == {}


def test_a_host_that_is_waited_for_in_vain_counts_as_gone_until_it_speaks(bench, monkeypatch):
    bench.host.hello()
    assert bench.link.attended
    monkeypatch.setattr("runtime.init.agent.link.SILENCE_S", 0.0)
    bench.link.expect()
    bench.turn()
    bench.turn()
    assert not bench.link.attended and bench.closed == ["silent"]
    bench.host.call("x")
    assert bench.link.attended


def test_a_host_that_asks_and_takes_nothing_fills_no_memory(bench, monkeypatch):
    monkeypatch.setattr(link, "_BUSY_BYTES", 100_000)
    monkeypatch.setattr(link, "_MOST_BYTES", 200_000)
    bench.host.hello()
    most = 0
    for number in range(1, 3000):
        request = b'{"method":"big","params":{"size":90000}}'
        os.write(bench.host.fd, frames.frame(frames.OPEN, number, request))
        bench.turn()
        most = max(most, bench.link.unsent_bytes)
    assert 190_000 < most < 300_000  # answers, then refusals, then nothing
    assert bench.closed == ["session"] and not bench.link.session
    assert bench.host.hello()["little"] is True
    assert bench.host.call("x") == {}


def test_a_device_that_hangs_up_ends_the_session_and_is_looked_for_again(bench):
    bench.host.hello()
    bench.host.close()
    for _ in range(3):
        bench.turn()
    assert bench.closed == ["session"] and not bench.link.session


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_host_sends_the_next_session_works(bench, seed):
    """Garbage, frames cut and changed, frames of every kind with any contents, in any order."""
    chance = random.Random(seed)
    bench.host.hello()
    for _ in range(60):
        kind = chance.choice([*range(12), chance.randrange(256)])
        payload = chance.choice(
            [
                b"",
                b"{}",
                b'{"method":"echo"}',
                b'{"method":"x","params":5}',
                b"[" * 500,
                b"\xff\xfe",
                b"\1\0\0\0",
                bytes(4096),
            ]
        )
        data = frames.frame(kind, chance.choice([0, 1, 2, 1 << 31]), payload, chance.choice([0, 1, 2, 7]))
        if chance.random() < 0.2:
            at = chance.randrange(len(data))
            data = chance.choice([data[:at], data[:at] + b"\x55" + data[at + 1 :], chance.randbytes(300)])
        os.write(bench.host.fd, data)
        bench.turn()
        try:
            while os.read(bench.host.fd, 65536):
                pass
        except BlockingIOError:
            pass
    assert bench.host.hello()["little"] is True
    assert bench.host.call("x", a=[1]) == {"a": [1]}
