"""DNS over TCP: a connection's queries one after the other, each answered here or by a resolver of the host.

Each query that is not about a zone goes to a resolver by a connection of its own, so that one connection of the
zone's serves both kinds.
Source: RFC 7766 sections 6 and 8 (two bytes of length before each message), RFC 1035 section 4.2.2.
"""

from __future__ import annotations

import errno
import socket
import time

from runtime.net.engine.acceptor import Traffic
from runtime.net.engine.dns import SERVFAIL, Resolvers, answers, failure, family_of, own_answer, socket_address, unable
from runtime.net.engine.loop import READ, WRITE, Loop
from runtime.net.engine.names import HEADER_BYTES, RESPONSE, Names
from runtime.net.engine.relay import reset
from runtime.net.engine.silence import undelivered

_IDLE_S = 10.0
_READ_BYTES = 4096
_PENDING = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


def framed(message: bytes) -> bytes:
    """A message with its length."""
    return len(message).to_bytes(2, "big") + message


def unframed(data: bytes | bytearray) -> bytes | None:
    """The first message, None where it is not there yet."""
    size = int.from_bytes(data[:2], "big")
    return bytes(data[2 : 2 + size]) if len(data) >= 2 + size and len(data) >= 2 else None


class StreamServer:
    """The connections of one zone."""

    def __init__(self, loop: Loop, traffic: Traffic, resolvers: Resolvers, names: Names) -> None:
        self.loop, self.traffic, self.resolvers, self.names = loop, traffic, resolvers, names
        self.streams: set[Stream] = set()

    def serve(self, near: socket.socket) -> None:
        """One more."""
        if len(self.streams) >= self.traffic.limits.dns_pending:
            self.traffic.counts["limited"] += 1
            reset(near)
        else:
            Stream(self, near)

    def close(self) -> None:
        """Serve none any more."""
        for stream in list(self.streams):
            stream.abort()


class Stream:
    """One connection."""

    def __init__(self, owner: StreamServer, near: socket.socket) -> None:
        self._owner, self._near = owner, near
        self._asked, self._answer = bytearray(), b""
        self._query = b""  # the one under way at a resolver
        self._code = SERVFAIL  # what there is to say about it where nobody answers
        self._queries = owner.traffic.queries
        self._outer: socket.socket | None = None
        self._outgoing, self._incoming = b"", bytearray()
        self._servers: list[str] = []
        self._leaving = False
        self._deadline = time.monotonic() + _IDLE_S
        self._try_until = 0.0
        near.setblocking(False)
        owner.streams.add(self)
        owner.loop.urgent.add(self)
        owner.loop.watch(near, self, READ)

    def ready(self, source: socket.socket, mask: int) -> None:
        """Go on with what was asked or with what is to be said."""
        if self not in self._owner.streams:
            return
        if source is self._outer:
            self._go_on_asking(source)
            return
        try:
            if self._answer:
                self._say(b"")
            else:
                data = self._near.recv(_READ_BYTES)
                if not data:
                    self._leave()
                    return
                self._asked += data
            self._work()
        except BlockingIOError:
            pass
        except OSError:
            self.abort()

    def _work(self) -> None:
        """Answer what can be answered; wait for what comes next, one thing at a time. Raises OSError."""
        while not self._answer and not self._query and (query := unframed(self._asked)) is not None:
            del self._asked[: 2 + len(query)]
            if len(query) < HEADER_BYTES or query[2] & RESPONSE:
                self.abort()
                return
            self._owner.traffic.counts["dns_queries"] += 1
            known = own_answer(query, self._owner.names)
            if known is None and len(self._queries) >= self._owner.traffic.limits.dns_pending:
                self._fail(query)
            elif known is None:
                self._query = query
                self._queries.add(self)
                self._servers = list(self._owner.resolvers.current())
                self._deadline = time.monotonic() + self._owner.traffic.limits.dns_timeout_s
                self._ask_next()
            else:
                self._say(framed(known))
        if self in self._owner.streams:
            self._owner.loop.watch(self._near, self, WRITE if self._answer else 0 if self._query else READ)

    def _say(self, message: bytes) -> None:
        self._deadline = time.monotonic() + _IDLE_S
        self._answer += message
        try:
            self._answer = self._answer[self._near.send(self._answer) :]
        except BlockingIOError:
            pass

    def _ask_next(self) -> None:
        """Ask the next resolver, or give up."""
        self._close_outer()
        while self._servers:
            server = self._servers.pop(0)
            try:
                outer = self._outer = socket.socket(family_of(server), socket.SOCK_STREAM)
                outer.setblocking(False)
                code = outer.connect_ex(socket_address(server))
            except OSError:
                code = errno.EIO
            if code in _PENDING and self._outer is not None:
                self._outgoing, self._incoming = framed(self._query), bytearray()
                self._try_until = time.monotonic() + self._owner.traffic.limits.dns_try_s
                self._owner.loop.watch(self._outer, self, WRITE)
                return
            self._close_outer()
        query, code = self._query, self._code
        self._close_query()
        self._fail(query, code)

    def _go_on_asking(self, outer: socket.socket) -> None:
        try:
            if self._outgoing:
                self._outgoing = self._outgoing[outer.send(self._outgoing) :]
                if not self._outgoing:
                    self._owner.loop.watch(outer, self, READ)
                return
            data = outer.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._incoming += data
        answer = unframed(self._incoming)
        if answer is not None and answer[:2] == self._query[:2] and answers(self._query, answer):
            if self._servers and (code := unable(answer)):
                self._code = code
                self._resume()
            else:
                self._resume(answer)
        elif not data or answer is not None:
            self._resume()

    def _fail(self, query: bytes, code: int = SERVFAIL) -> None:
        self._owner.traffic.counts["dns_failed"] += 1
        self._say(framed(failure(query, code)))

    def _close_query(self) -> None:
        """None is under way any more."""
        self._close_outer()
        self._query = self._outgoing = b""
        self._code = SERVFAIL
        self._incoming.clear()
        self._queries.discard(self)

    def _resume(self, answer: bytes | None = None) -> None:
        """Go on with an answer, or by asking the next resolver."""
        try:
            if answer is None:
                self._ask_next()
            else:
                self._close_query()
                self._say(framed(answer))
            self._work()
        except OSError:
            self.abort()

    def _close_outer(self) -> None:
        if self._outer is not None:
            self._owner.loop.forget(self._outer)
            self._outer.close()
            self._outer = None

    def tick(self, now: float) -> None:
        """Give up a resolver that is silent, a query that takes too long, a client that says nothing."""
        if self._query and (now >= self._try_until or now >= self._deadline):
            if now >= self._deadline:
                self._servers.clear()
            self._resume()
        elif self._leaving and not undelivered(self._near):
            self._end()
        elif not self._query and now >= self._deadline:
            self._end(graceful=not undelivered(self._near))

    def _leave(self) -> None:
        """Nothing more is asked: end, once what was said has been taken; see relay.py. Raises OSError."""
        if undelivered(self._near):
            self._leaving = True
            self._owner.loop.watch(self._near, self, 0)
            self._near.shutdown(socket.SHUT_WR)
        else:
            self._end()

    def abort(self) -> None:
        """Reset it. Harmless twice."""
        self._end(graceful=False)

    def _end(self, *, graceful: bool = True) -> None:
        if self not in self._owner.streams:
            return
        self._owner.streams.discard(self)
        self._owner.loop.discard(self)
        self._close_query()
        self._owner.loop.forget(self._near)
        if graceful:
            self._near.close()
        else:
            reset(self._near)
