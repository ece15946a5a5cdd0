"""Dialled connections, and what is told of them where the agent has run out of something."""

import errno
import socket
from types import SimpleNamespace

import pytest

from runtime.init.agent import dial
from runtime.init.agent.loop import Loop
from runtime.init.agent.stream import Stream


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
