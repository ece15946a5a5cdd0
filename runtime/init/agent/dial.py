"""The `dial` stream: a TCP connection within the zone, its bytes to and from the host."""

import _socket
import errno
import posix

from runtime.init.agent.errors import Refused
from runtime.init.agent.loop import WRITE, Loop
from runtime.init.agent.pipes import Sink, Source
from runtime.init.agent.stream import Handler, Outlet, Stream

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable


# Of a service that was quicker than we: no connection is refused with these (net/ipv4/tcp_input.c, tcp_reset).
_BEHIND_A_CONNECTION = (errno.ECONNRESET, errno.EPIPE)


class _Sender(Sink):
    """A socket's sending half: its end is a shutdown, the other half stays. done() is called then, once."""

    def __init__(self, loop: Loop, sock: _socket.socket, done: "Callable[[], object]") -> None:
        super().__init__(loop, posix.dup(sock.fileno()))
        self._sock, self._done = sock, done

    def close(self) -> None:
        if self.closed:
            super().close()
            return
        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # the other side has gone
        super().close()
        self._done()


class Dial(Handler):
    """Connects, says {"connected": true}, then passes bytes until both directions have ended."""

    def __init__(self, loop: Loop, stream: Stream, address: str, port: int) -> None:
        family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
        self._loop, self._stream, self._where = loop, stream, f"{address} port {port}"
        try:
            _socket.inet_pton(family, address)
        except OSError:
            raise Refused("params", f"address: expected an IPv4 or IPv6 address, got {address!r:.60}") from None
        self._sock = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        self._source: Source | None = None
        self._sink: Sink | None = None
        self._outlet: Outlet | None = None
        self._waiting: list[bytes] = []
        self._input_ended = False
        self._reset = 0
        failed = self._sock.connect_ex((address, port))
        if failed not in (0, errno.EINPROGRESS):
            self._sock.close()
            raise Refused(errno.errorcode.get(failed, "internal"), f"{self._where}: {posix.strerror(failed)}")
        loop.watch(self._sock.fileno(), WRITE, self._answered)

    def data(self, fd: int, payload: bytes) -> None:
        """Bytes for the other side; kept while the connection is being made, which credit bounds."""
        if fd != 0:
            raise Refused("protocol", f"dial: expected bytes of descriptor 0, got some of {fd}")
        if self._sink is None and not self._input_ended:
            self._waiting.append(payload)
        elif self._sink is not None and self._sink.open:
            self._sink.feed(payload, lambda count: self._stream.consumed(0, count))
        else:
            self._stream.consumed(0, len(payload))
            self._finish()

    def eof(self, fd: int) -> None:
        """The host has sent everything."""
        self._input_ended = True
        if self._sink is not None and self._sink.open:
            self._sink.finish()
        self._finish()

    def closed(self) -> None:
        """Hang up."""
        if self._source is not None:
            self._source.close()
        if self._sink is not None:
            self._sink.close()
        if self._sock.fileno() >= 0:
            self._loop.forget(self._sock.fileno())
            self._sock.close()

    def _answered(self) -> None:
        try:
            self._connected()
        except OSError as error:  # no descriptors left for its halves
            self._stream.refuse(error)

    def _connected(self) -> None:
        self._loop.forget(self._sock.fileno())
        failed = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if failed not in (0, *_BEHIND_A_CONNECTION):
            self._fail(failed)
            return
        # Reading the error has taken it away; what has come ahead of a reset is there still.
        self._reset = failed if failed == errno.ECONNRESET else 0
        self._stream.event({"connected": True})
        self._sink = _Sender(self._loop, self._sock, self._finish)
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            self._sink.feed(piece, lambda count: self._stream.consumed(0, count))
        if self._input_ended:
            self._sink.finish()
        self._source = Source(self._loop, posix.dup(self._sock.fileno()))
        self._outlet = self._stream.pour(1, self._source)
        self._outlet.done = self._poured

    def _poured(self) -> None:
        """All has come that will. A reset is told once, to the half that meets it first, and is no end to the other.

        One behind the service's own end is EPIPE: what it said is whole (net/ipv4/tcp_input.c, tcp_reset).
        """
        failed = self._reset or (self._source.failed if self._source is not None else 0)
        if not failed and self._sink is not None and self._sink.failed != errno.EPIPE:
            failed = self._sink.failed
        if failed:
            self._fail(failed)
        else:
            self._finish()

    def _fail(self, code: int) -> None:
        self._stream.fail(errno.errorcode.get(code, "internal"), f"{self._where}: {posix.strerror(code)}")

    def _finish(self) -> None:
        # What the host has sent may wait still, for a service that has said all it had to and goes on reading.
        if self._outlet is not None and self._outlet.ended and (self._sink is None or self._sink.closed):
            self._stream.succeed({})
