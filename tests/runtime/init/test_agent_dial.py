"""Dialled connections, and what is told of them where the agent has run out of something."""

import errno
import socket
import struct
from types import SimpleNamespace

import pytest

from runtime.init.agent import dial
from runtime.init.agent.loop import Loop
from runtime.init.agent.stream import Stream
from runtime.init.channel import frames


@pytest.mark.parametrize("left", [0, 1])
def test_a_connection_for_which_no_descriptor_is_left_is_refused(monkeypatch, left):
    """Whoever dialled would wait for ever."""
    loop, sent, dup = Loop(), [], dial.posix.dup

    def scarce(fd):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return dup(fd)

    stream = Stream(SimpleNamespace(put=sent.append, ready=lambda outlet: None, streams={}), 1, "dial")
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream.handler = dial.Dial(loop, stream, *server.getsockname())
        monkeypatch.setattr(dial.posix, "dup", scarce)
        loop.each_time(lambda: setattr(loop, "stopped", True))
        loop.run()
        with server.accept()[0] as other:
            assert stream.over and b"EMFILE" in sent[-1] and other.recv(1) == b""


@pytest.mark.parametrize(("ended", "result"), [(False, b"ECONNRESET"), (True, b'{"ok":{}}')])
def test_what_came_ahead_of_a_reset_is_read_though_that_was_there_before_the_connection_was_looked_at(ended, result):
    loop, sent, ready = Loop(), [], []
    stream = Stream(SimpleNamespace(put=sent.append, ready=ready.append, streams={}), 1, "dial")

    def turn():
        while ready:
            outlet = ready.pop()
            if outlet.send():
                ready.append(outlet)
        loop.stopped = stream.over

    with socket.create_server(("127.0.0.1", 0)) as server:
        stream.handler = dial.Dial(loop, stream, *server.getsockname())
        stream.frame(frames.EOF, 0, b"")
        with server.accept()[0] as other:
            other.send(b"the first half")
            if ended:
                other.shutdown(socket.SHUT_WR)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    loop.each_time(turn)
    loop.run()
    said = b"".join(sent)
    assert b'{"connected":true}' in said and b"the first half" in said and result in sent[-1]
